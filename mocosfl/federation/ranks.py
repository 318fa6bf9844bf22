"""What a process knows of the others that train the same federation.

The clients of a pool are dealt to the processes in turn: place p of the pool is process p % R's,
so that clients with large batches, which come first, spread evenly. A process alone asks nobody:
every method here then gives back what it was given, without a call of torch.distributed.

R: processes. P: clients in the pool. Nothing here has a gradient.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks(NamedTuple):
    """One process among those of a run."""

    rank: int = 0  # of this process; 0 writes and logs
    number: int = 1  # R

    def own(self, pool_size: int) -> slice:
        """Return which of P places are this process's."""
        return slice(self.rank, pool_size, self.number)

    def num_own(self, pool_size: int) -> int:
        """Return how many of P places are this process's."""
        return len(range(pool_size)[self.own(pool_size)])

    def of_pool(self, own: Tensor, pool_size: int) -> Tensor:
        """Put the places' rows of all processes together, own (P_r, ...) -> (P, ...)."""
        if self.number == 1:
            return own
        most = -(-pool_size // self.number)
        padded = gather_rows(own, [most] * self.number)
        # Place p is row p // R of process p % R.
        by_row = padded.view(self.number, most, *own.shape[1:]).transpose(0, 1)
        return by_row.flatten(0, 1)[:pool_size]

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums over the processes, as one transfer; tensors of one dtype."""
        if self.number == 1:
            return list(tensors)
        flat = _flatten(tensors)
        dist.all_reduce(flat)
        return _unflatten(flat, tensors)

    def of_first(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return what the first process has given, as one transfer; tensors of one dtype."""
        if self.number == 1:
            return list(tensors)
        flat = _flatten(tensors)
        dist.broadcast(flat, src=0)
        return _unflatten(flat, tensors)

    def at_place(self, own: Tensor, place: int) -> Tensor:
        """Return the row of one place of the pool, own (P_r, ...) -> (...)."""
        if self.number == 1:
            return own[place]
        owner, row = place % self.number, place // self.number
        tensor = own[row].clone() if owner == self.rank else torch.empty_like(own[0])
        dist.broadcast(tensor, src=owner)
        return tensor

    def decided_by_first(self, value: Any) -> Any:
        """Return what the first process has given; waits for it. For plain, small values."""
        if self.number == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def all_agree(self, value: bool) -> bool:
        """Return whether all processes have given True; waits for them."""
        if self.number == 1:
            return value
        values: list[bool | None] = [None] * self.number
        dist.all_gather_object(values, value)
        return all(values)


ALONE = Ranks()


def gather_rows(rows: Tensor, num_rows: Sequence[int]) -> Tensor:
    """Put the rows of all processes one process after the other.

    Args:
        rows: (n, ...), this process's; n may be below what `num_rows` says of it.
        num_rows: rows of each process, known to all of them.

    Returns:
        (R * m, ...) with m the most rows of one process; what is missing is zeros.
    """
    most = max(num_rows)
    padded = rows.detach().new_zeros(most, *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    gathered = [torch.empty_like(padded) for _ in num_rows]
    dist.all_gather(gathered, padded)
    return torch.cat(gathered)


def _flatten(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _unflatten(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = flat.split([tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]
