"""A training step as the data side hands it to the training side, and whose its rows are.

P: clients in the pool. B: rows of the step, the images of all clients that are there. Where several
processes share a pool, each has a step of its own, with its clients and their rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mocosfl.federation.ranks import gather_rows


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


class Everyone(NamedTuple):
    """A step of all processes together, in the order that one process alone would have."""

    pool: Tensor  # (P,) ids of all clients of the pool
    groups: tuple[ClientGroup, ...]  # of all rows; places in the whole pool
    # Of each group (p,): where a client's rows begin in those of all processes, each process's
    # filled up to the most rows of one.
    starts: tuple[Tensor, ...]
    num_rows: tuple[int, ...]  # of each process

    def of_all(self, rows: Tensor) -> Tensor:
        """Gather the rows of all processes, (n, ...) -> (B, ...), without gradient."""
        order = [
            (start[:, None] + torch.arange(group.batch_size, device=start.device)).flatten()
            for start, group in zip(self.starts, self.groups, strict=True)
        ]
        return gather_rows(rows, self.num_rows)[torch.cat(order)]

    def doubled(self) -> "Everyone":
        """Return the step in which each client has twice as many rows."""
        return Everyone(
            self.pool,
            doubled_groups(self.groups),
            tuple(2 * start for start in self.starts),
            tuple(2 * number for number in self.num_rows),
        )


class Step(NamedTuple):
    """One training step of the pool."""

    # (B, 3, H, W) normalised, on the training device; of remote clients' rows there are none.
    view1: Tensor
    view2: Tensor | None  # (B, 3, H, W); None where the method looks at one view
    labels: Tensor | None  # (B,) int64; None where the method works without
    pool: Tensor  # (P,) ids of the clients, in the order of their heads in the stack
    groups: tuple[ClientGroup, ...]  # who the rows belong to; a client that misses has none
    round: int  # counted from 0
    number: int  # of the step in its round, from 0
    new_round: bool  # whether the pool may have changed
    sync_due: bool  # whether the heads are averaged after this step
    everyone: Everyone | None = None  # of several processes; the rest is then this process's own

    @property
    def whole_pool(self) -> Tensor:
        """Ids of the clients of all processes, (P,)."""
        return self.pool if self.everyone is None else self.everyone.pool

    @property
    def all_groups(self) -> tuple[ClientGroup, ...]:
        """Whose the rows of all processes are; places in the whole pool."""
        return self.groups if self.everyone is None else self.everyone.groups

    @property
    def places(self) -> Tensor | None:
        """Places in the whole pool of the clients that take part, (p,); None where all do."""
        return places_there(self.all_groups, self.whole_pool)

    @property
    def num_images(self) -> int:
        """Images of all processes."""
        return sum(group.num_rows for group in self.all_groups)


def rows_by_group(rows: Tensor, groups: Sequence[ClientGroup]) -> list[Tensor]:
    """Cut rows (B, ...) into a tensor (p, b, ...) for each group."""
    parts = rows.split([group.num_rows for group in groups])
    return [
        part.unflatten(0, (len(group.places), group.batch_size))
        for part, group in zip(parts, groups, strict=True)
    ]


def doubled_groups(groups: Sequence[ClientGroup]) -> tuple[ClientGroup, ...]:
    """Return groups in which each client has twice as many rows."""
    return tuple(group._replace(batch_size=2 * group.batch_size) for group in groups)


def places_there(groups: Sequence[ClientGroup], pool: Tensor) -> Tensor | None:
    """Return the places of a pool that are there, (p,); None where all are."""
    if sum(len(group.places) for group in groups) == len(pool):
        return None
    return torch.cat([pool.new_zeros(0), *(group.places for group in groups)])


def without_rows(*modules: nn.Module) -> Tensor:
    """Return no values, (0,), whose gradient is zeros for all trained parameters.

    For a process whose clients all miss a step: the others wait for its gradient.
    """
    trained = [p.flatten()[:0] for m in modules for p in m.parameters() if p.requires_grad]
    return torch.cat(trained) if trained else torch.zeros(0)
