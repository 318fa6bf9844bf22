"""An exported file takes its name once it computes what torch computes.

So a file that is there is a checked one, and one that was there stays where the new one fails.

Legend: B images of the check, S pixels of their side.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mocosfl.system.files import replaced

NUM_RANDOM = 4  # random images on which a file is compared with torch
# How far a file may be from torch, in units of torch's own rounding in float32. Both round, in
# other orders; measured: at most 1.4 units, from ResNet-18 at cut 1 (3e-7 of the largest output) to
# all of ResNet-152 (1e-3 of it).
TOLERANCE = 10.0

Runner = Callable[[Tensor], Tensor]  # images (B, 3, S, S) -> what a file makes of them
Writer = Callable[[Path], Runner]  # writes a file; returns what it computes


class Parity(NamedTuple):
    """How far a file's outputs are from torch's, on the images of a check."""

    difference: float  # the largest
    rounding: float  # the largest between torch's own in float32 and in float64
    largest: float  # the largest of torch's outputs


def write_checked(file: Path, write: Writer, network: nn.Module, images: Tensor) -> Parity:
    """Write a file of a network and compare the two; a file that is there is replaced.

    Args:
        file: to write, in a folder that is there.
        write: given a file beside it.
        network: what the file is to compute, in float32.
        images: (B, 3, S, S) float32, what to compare on.

    Raises:
        ValueError: they differ by more than rounding; what was there before is left as it was.
    """
    with replaced(file) as partial:
        parity = _compare(network, write(partial), images)
        if not parity.difference <= TOLERANCE * parity.rounding:
            raise ValueError(
                f"{file.name}: its outputs differ from torch's by {parity.difference:.1e}, where "
                f"rounding makes {parity.rounding:.1e}; nothing is written. A fault of mocosfl or "
                "of onnxruntime: try another version of onnxruntime, and report it"
            )
    return parity


def _compare(network: nn.Module, run: Runner, images: Tensor) -> Parity:
    with torch.inference_mode():
        expected = network(images)
        exact = deepcopy(network).double()(images.double())
        found = run(images)
    return Parity(
        float((found - expected).abs().max()),
        float((expected - exact).abs().max()),
        float(expected.abs().max()),
    )
