"""A training step as the data side hands it to the training side, and whose its rows are.

P: clients in the pool. B: rows of the step, the images of all clients that are there.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class ClientGroup(NamedTuple):
    """Clients of the pool that bring equally many images to a step.

    The rows of a step are its groups' one after the other, and in a group client by client.
    """

    places: Tensor  # (p,) places in the pool, rising, on the training device
    batch_size: int  # rows of each

    @property
    def num_rows(self) -> int:
        """Rows of the group."""
        return len(self.places) * self.batch_size


class Step(NamedTuple):
    """One training step of the pool."""

    view1: Tensor  # (B, 3, H, W) normalised, on the training device
    view2: Tensor | None  # (B, 3, H, W); None where the method looks at one view
    labels: Tensor | None  # (B,) int64; None where the method works without
    pool: Tensor  # (P,) ids of the clients, in the order of their heads in the stack
    groups: tuple[ClientGroup, ...]  # who the rows belong to; a client that misses has none
    round: int  # counted from 0
    number: int  # of the step in its round, from 0
    new_round: bool  # whether the pool may have changed
    sync_due: bool  # whether the heads are averaged after this step


def rows_by_group(rows: Tensor, groups: Sequence[ClientGroup]) -> list[Tensor]:
    """Cut rows (B, ...) into a tensor (p, b, ...) for each group."""
    parts = rows.split([group.num_rows for group in groups])
    return [
        part.unflatten(0, (len(group.places), group.batch_size))
        for part, group in zip(parts, groups, strict=True)
    ]
