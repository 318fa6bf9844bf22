"""Which rows of a step are a process's, in plain numbers before anything is on a device.

Legend: P clients in the pool, R processes, p clients of a group, B rows of a step.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mocosfl.federation.ranks import Ranks

_Ints = npt.NDArray[np.int64]
Groups = Sequence[tuple[_Ints, int]]  # (places in the pool, batch size) of each group


class Shard(NamedTuple):
    """One process's part of a step."""

    groups: list[tuple[_Ints, int]]  # its own; places in its own part of the pool
    own: npt.NDArray[np.bool_]  # (B,) whether a row is its own
    starts: list[_Ints]  # of each group of all: see `step_input.Everyone`
    num_rows: tuple[int, ...]  # of each process


def shard_step(groups: Groups, ranks: Ranks) -> Shard:
    """Find a process's part of a step.

    Args:
        groups: of the whole step, in row order.
        ranks: the process among all.
    """
    num_rows = np.zeros(ranks.number, np.int64)  # so far, of each process
    own_groups, own_rows, starts = [], [], []
    for places, batch_size in groups:
        owners = places % ranks.number
        start = np.empty(len(places), np.int64)
        for rank in range(ranks.number):
            here = owners == rank
            number = int(here.sum())
            start[here] = num_rows[rank] + batch_size * np.arange(number)
            num_rows[rank] += batch_size * number
        mine = owners == ranks.rank
        if mine.any():
            own_groups.append((places[mine] // ranks.number, batch_size))
        own_rows.append(np.repeat(mine, batch_size))
        starts.append(start)
    most = int(num_rows.max())
    starts = [
        start + most * (places % ranks.number)
        for start, (places, _) in zip(starts, groups, strict=True)
    ]
    return Shard(own_groups, np.concatenate(own_rows), starts, tuple(num_rows.tolist()))
