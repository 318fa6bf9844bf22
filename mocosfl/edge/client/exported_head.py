"""An exported head: the file that `python -m mocosfl.export head` writes, and running it.

A plain ONNX graph, images (n, 3, S, S) to smashed data (n, c, h, w), float32, with what must be
known of it as metadata. Needs onnxruntime and numpy alone.
"""

from pathlib import Path
from typing import NamedTuple, get_type_hints

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_errors

from mocosfl.edge.wire import PROTOCOL
from mocosfl.system.metadata import from_metadata, to_metadata

INPUT, OUTPUT = "images", "smashed"
_QUIET = 3  # onnxruntime's level of errors; what it warns of is nothing that a user can change
_UNREADABLE = (
    onnxruntime_errors.Fail,
    onnxruntime_errors.InvalidArgument,
    onnxruntime_errors.InvalidGraph,
    onnxruntime_errors.InvalidProtobuf,
    onnxruntime_errors.NotImplemented,
    onnxruntime_errors.RuntimeException,
)


class HeadFacts(NamedTuple):
    """What an exported head says of itself."""

    digest: str  # `wire.head_digest` of the head in the checkpoint
    smashed_shape: tuple[int, int, int]  # (c, h, w) of a row
    image_size: int  # S, pixels
    mean: tuple[float, ...]  # of each channel, images scaled to [0, 1]
    std: tuple[float, ...]
    backbone: str
    cut_layer: int
    step: int  # training steps behind it
    protocol: int = PROTOCOL

    def to_metadata(self) -> dict[str, str]:
        """Return the facts as the metadata of an ONNX file."""
        return to_metadata(self._asdict())


def head_facts_from_metadata(metadata: dict[str, str]) -> HeadFacts:
    """Read the facts.

    Raises:
        KeyError, ValueError, TypeError: they are not there, or not as `to_metadata` writes them.
    """
    return HeadFacts(**from_metadata(metadata, get_type_hints(HeadFacts)))


class ExportedHead:
    """Runs an exported head on one thread."""

    def __init__(self, file: Path) -> None:
        """Load the head.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no exported head, or one of another version of mocosfl.
        """
        if not file.is_file():
            raise FileNotFoundError(
                f"head={file}: no such file; copy it here from where "
                "`python -m mocosfl.export head` has written it"
            )
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), _options(), providers=["CPUExecutionProvider"]
            )
        except _UNREADABLE as error:
            raise ValueError(
                f"head={file}: no ONNX file that onnxruntime {onnxruntime.__version__} can run; "
                f"if it was cut off in a copy, copy it again ({error})"
            ) from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        try:
            self.facts = head_facts_from_metadata(metadata)
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"head={file}: not written by `python -m mocosfl.export head`, or not by this "
                "version; export it again"
            ) from error
        self._check(file)

    def _check(self, file: Path) -> None:
        facts = self.facts
        if facts.protocol != PROTOCOL:
            raise ValueError(
                f"head={file}: exported for version {facts.protocol} of the protocol, this "
                f"program speaks {PROTOCOL}; export it again with the same version of mocosfl"
            )
        shapes = [
            tuple(end.shape[1:])
            for end in (*self._session.get_inputs(), *self._session.get_outputs())
        ]
        if shapes != [(3, facts.image_size, facts.image_size), facts.smashed_shape]:
            raise ValueError(f"head={file}: its graph is another than it says; export it again")

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map normalised images (n, 3, S, S) to smashed data (n, c, h, w)."""
        smashed: npt.NDArray[np.float32] = self._session.run([OUTPUT], {INPUT: images})[0]
        return smashed


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # On, as by default: without it the C library's heap falls to pieces. Measured with ResNet-18,
    # cut 2, C4S2, one image: 14 MB above the imports with it, 30 without; the level of the graph's
    # optimisation, its memory pattern and prepacked weights change less than 1 MB.
    options.enable_cpu_mem_arena = True
    options.log_severity_level = _QUIET
    return options
