"""A client with an exported head in a fresh process, for `edge_memory`.

    python -m benchmarks.frozen_client <head.onnx> <welcome> <steps>

<welcome> is a file with a serialised Welcome. Prints what the process held, bytes, and its speed as
JSON. Nothing heavy is imported before the first number is read, and torch never.
"""

import ctypes
import gc
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import forget_peak, memory

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from mocosfl.edge import federation_pb2 as pb

NUM_IMAGES = 50  # the published setting's


def main() -> None:
    """Run a client's steps twice, and print what they need."""
    file, welcome_file, num_steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    found: dict[str, float] = {"python_bytes": resident()}
    # What the client program imports, the network too.
    import grpc.aio  # noqa: F401

    from mocosfl.edge import federation_pb2 as pb

    welcome = pb.Welcome.FromString(welcome_file.read_bytes())
    images = NoiseImages(welcome.settings.image_size)
    found["imports_bytes"] = resident()
    found["seconds_a_step"] = run_client(images, file, welcome, num_steps)
    found["peak_bytes"], found["peak_own_bytes"] = memory()
    # Once more: what stayed are the libraries' own pages, code and tables read at the first use.
    give_back()
    before = resident()
    run_client(images, file, welcome, num_steps)
    found["working_bytes"] = memory().peak_bytes - before
    assert "torch" not in sys.modules
    print(json.dumps(found))


def resident() -> int:
    """Forget the peak so far; returns the bytes that the process holds now."""
    forget_peak()
    return memory().peak_bytes


class NoiseImages:
    """A client's images, random."""

    def __init__(self, size: int) -> None:
        """Make NUM_IMAGES square images of a side in pixels."""
        import numpy as np

        shape = (NUM_IMAGES, size, size, 3)
        self._pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def fit(self, image_size: int) -> None:
        """Check the size, pixels."""
        assert self._pixels.shape[1] == image_size

    def __len__(self) -> int:
        """Return how many there are."""
        return NUM_IMAGES

    def read(self, indices: "npt.NDArray[np.int64]") -> "npt.NDArray[np.uint8]":
        """Return some of them, (m, S, S, 3)."""
        return self._pixels[indices]


def run_client(images: NoiseImages, file: Path, welcome: "pb.Welcome", num_steps: int) -> float:
    """Load the head and do a client's steps; returns the seconds of one, views included."""
    from mocosfl.edge import federation_pb2 as pb
    from mocosfl.edge import wire
    from mocosfl.edge.client.frozen_head import FrozenHead

    settings = welcome.settings
    head = FrozenHead(images, file)
    head.begin(welcome)
    start = time.perf_counter()
    for step in range(num_steps):
        round_index, number = divmod(step, settings.steps_per_round)
        query, key = head.smash(pb.StepRequest(step=step, round=round_index, number=number))
        sent = [wire.encode_tensor(rows, settings.smashed_dtype) for rows in (query, key)]
        pb.ClientMessage(
            smashed=pb.Smashed(step=step, query=sent[0], key=sent[1])
        ).SerializeToString()
    return (time.perf_counter() - start) / num_steps


def give_back() -> None:
    """Return what is free to the system."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others keep little
    if trim is not None:
        trim(0)


if __name__ == "__main__":
    main()
