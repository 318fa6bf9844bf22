"""Writing an encoder as files that need nothing of the run: safetensors and ONNX.

Each file is compared with torch before it takes its name, so a file that is there is a checked one.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mocosfl.data.image_folder import walk_pictures
from mocosfl.encoder import ImageEncoder, load_encoder
from mocosfl.encoder_file import read_encoder_file, write_encoder_file

FORMATS = ("safetensors", "onnx")
INPUT, OUTPUT = "images", "features"  # of the ONNX graph
NUM_RANDOM = 4  # random images on which a file is compared with torch
MAX_PICTURES = 64  # real ones, an even spread of the folder's
# How far an ONNX file may be from torch, in units of torch's own rounding in float32; as
# export.TOLERANCE for heads.
TOLERANCE = 10.0
_QUIET = 3  # onnxruntime's level of errors; what it warns of is nothing that a user can change


class Parity(NamedTuple):
    """How far a file's features are from torch's, on the images of a check."""

    difference: float  # the largest
    rounding: float  # the largest between torch's own in float32 and in float64
    largest: float  # the largest of torch's features


class WrittenFile(NamedTuple):
    """A file that was written, and its check."""

    file: Path
    parity: Parity


class ExportedEncoder(NamedTuple):
    """All that was written of an encoder."""

    encoder: ImageEncoder
    files: list[WrittenFile]
    checked_on: str  # what the images of the check were


def export_encoder(
    checkpoint: Path,
    folder: Path,
    *,
    which: str = "last",
    formats: Sequence[str] = FORMATS,
    pictures: Path | None = None,
) -> ExportedEncoder:
    """Write `encoder.<format>` of a checkpoint into a folder, and compare each with torch.

    Args:
        checkpoint: a run folder, a checkpoint file or an exported `.safetensors`.
        folder: to write into, made where it is not there.
        which: `last` or `best`, of a run folder.
        formats: of `FORMATS`.
        pictures: a folder of pictures to compare on; None: random images.

    Raises:
        FileNotFoundError: no such checkpoint, or no such folder of pictures.
        ValueError: the checkpoint is none of ours, a package is missing, or a file's features
            are not the encoder's; then what was there before is left as it was.
    """
    if "onnx" in formats:
        check_onnx()
    encoder = load_encoder(checkpoint, which=which)
    images, checked_on = _images(encoder, pictures)
    folder.mkdir(parents=True, exist_ok=True)
    writers = {"safetensors": _write_safetensors, "onnx": _write_onnx}
    written = [_write(encoder, folder / f"encoder.{f}", writers[f], images) for f in formats]
    return ExportedEncoder(encoder, written, checked_on)


def check_onnx() -> None:
    """Check that ONNX files can be written and run here.

    Raises:
        ValueError: a package is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--format onnx: {error.name} is not installed: pip install -e '.[onnx]'; or leave "
            "ONNX out, --format safetensors"
        ) from error


_Runner = Callable[[Tensor], Tensor]  # images in [0, 1] -> features
_Writer = Callable[[ImageEncoder, Path], _Runner]  # writes a file; returns what it computes


def _write(encoder: ImageEncoder, file: Path, writer: _Writer, images: Tensor) -> WrittenFile:
    partial = file.with_name(f".{file.name}.partial")
    try:
        parity = _compare(encoder, writer(encoder, partial), images)
        if not parity.difference <= TOLERANCE * parity.rounding:
            raise ValueError(
                f"{file.name}: its features differ from torch's by {parity.difference:.1e}, where "
                f"rounding makes {parity.rounding:.1e}; nothing is written. A fault of mocosfl or "
                "of onnxruntime: try another version of onnxruntime, and report it"
            )
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return WrittenFile(file, parity)


def _compare(encoder: ImageEncoder, run: _Runner, images: Tensor) -> Parity:
    with torch.inference_mode():
        expected = encoder(images)
        exact = deepcopy(encoder).double()(images.double())
        found = run(images)
    return Parity(
        float((found - expected).abs().max()),
        float((expected - exact).abs().max()),
        float(expected.abs().max()),
    )


def _write_safetensors(encoder: ImageEncoder, file: Path) -> _Runner:
    write_encoder_file(encoder.network[1:], encoder.facts, file)
    return ImageEncoder(*read_encoder_file(file))


def _write_onnx(encoder: ImageEncoder, file: Path) -> _Runner:
    import onnx
    import onnxruntime

    from mocosfl.onnx_graph import to_onnx

    model = to_onnx(
        encoder.network,
        encoder.image_size,
        input_name=INPUT,
        output_name=OUTPUT,
        name="encoder",
    )
    onnx.helper.set_model_props(model, encoder.facts.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def _images(encoder: ImageEncoder, folder: Path | None) -> tuple[Tensor, str]:
    """Return the images of the check, and what they are."""
    if folder is None:
        generator = torch.Generator().manual_seed(0)
        size = encoder.image_size
        images = torch.rand(NUM_RANDOM, 3, size, size, generator=generator)
        return images, f"{NUM_RANDOM} random images (--images FOLDER takes pictures)"
    if not folder.is_dir():
        raise FileNotFoundError(f"--images={folder}: no such folder; name one of pictures")
    files = sorted(walk_pictures(folder, []))
    if not files:
        raise ValueError(f"--images={folder}: holds no pictures; name a folder that does")
    places = np.unique(np.linspace(0, len(files) - 1, MAX_PICTURES).round().astype(int))
    shown = [files[place] for place in places]
    return encoder.preprocess(shown), f"{len(shown)} of the {len(files):,} pictures in {folder}"
