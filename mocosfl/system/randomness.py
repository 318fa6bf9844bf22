"""Random generators as pure functions of a seed and a purpose.

Every draw in a run is a function of (seed, purpose, round, step, client), never of what was drawn
before. A run that is killed and resumed at any step, or spread over several processes, therefore
sees the same pools, image orders and views.
"""

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def _sequence(seed: int, stream: tuple[int | str, ...]) -> np.random.SeedSequence:
    # crc32 and not hash(): Python salts the hash of a string anew in each process.
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in stream]
    return np.random.SeedSequence([seed, *words])


def numpy_generator(seed: int, *stream: int | str) -> np.random.Generator:
    """Return the NumPy generator of one purpose.

    Args:
        seed: the run's seed, at least 0.
        stream: what the numbers are for, e.g. `("order", round, client)`; integers at least 0.
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed, stream)))


def torch_generator(seed: int, *stream: int | str) -> "torch.Generator":
    """Return the CPU torch generator of one purpose; arguments as in `numpy_generator`.

    Draws are made on the CPU and moved, so that a run has the same random numbers on any device.
    """
    import torch  # here, because a device without it draws NumPy's numbers

    state = int(_sequence(seed, stream).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(state)
