"""What the clients are given at a sync: a mean of the heads, and how much of it.

N: clients in all. P: clients in the pool. A head is a dictionary name -> tensor; the heads of a
pool are one whose tensors have a leading dimension P.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mocosfl.federation.ranks import Ranks

Heads = Mapping[str, Tensor]


def mean_of_rows(stacked: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean over the first dimension; where all rows are equal, not a bit changes.

    Args:
        stacked: (P, ...).
        weights: (P,) at least 0, with sum 1; None: each row counts the same.
    """
    apart = stacked - stacked[0]
    if weights is None:
        return stacked[0] + apart.mean(0)
    return stacked[0] + torch.einsum("p,p...->...", weights.to(stacked.dtype), apart)


def mean_head(
    heads: Heads, weights: Tensor | None, *, ranks: Ranks, pool_size: int
) -> dict[str, Tensor]:
    """Return the mean head of a pool; where all heads are equal, not a bit changes.

    Args:
        heads: this process's.
        weights: (P,) as in `mean_of_rows`.
        ranks: the process among those that share the pool. What travels is of the size of one
            head, whatever P is.
        pool_size: P.
    """
    if ranks.number == 1:
        return {name: mean_of_rows(stacked, weights) for name, stacked in heads.items()}
    firsts = ranks.of_first([stacked[0] for stacked in heads.values()])
    apart = [stacked - first for stacked, first in zip(heads.values(), firsts, strict=True)]
    if weights is None:
        sums = ranks.sum([rows.sum(0) / pool_size for rows in apart])
    else:
        own = weights[ranks.own(pool_size)]
        sums = ranks.sum([torch.einsum("p,p...->...", own.to(rows.dtype), rows) for rows in apart])
    means = (first + part for first, part in zip(firsts, sums, strict=True))
    return dict(zip(heads, means, strict=True))


def divergences(heads: Heads, mean: Heads) -> Tensor:
    """Return how far each head is from the mean, (P,): L2 norms of the tensors, summed."""
    norms = [
        torch.linalg.vector_norm((stacked - mean[name]).flatten(1), dim=1)
        for name, stacked in heads.items()
    ]
    return torch.stack(norms).sum(0)


class Spread(NamedTuple):
    """Divergences of a sync, over the clients that took part."""

    mean: Tensor
    std: Tensor
    least: Tensor
    most: Tensor


def spread(divergence: Tensor) -> Spread:
    """Summarise divergences (p,), p at least 1."""
    return Spread(
        divergence.mean(), divergence.std(correction=0), divergence.min(), divergence.max()
    )


class Averager(nn.Module):
    """Weights of the mean, and how much of its own head a client keeps.

    Source of the divergence-aware kind: Zhuang et al. 2022, "Divergence-aware federated
    self-supervised learning", eq. 4-5: head <- mu * head + (1 - mu) * mean with
    mu = min(lambda * divergence, 1); lambda is chosen for each client at its first sync, so that
    mu is `strength` there.
    """

    image_counts: Tensor  # (N,) or (0,)
    scales: Tensor  # (N,) lambda of each client, 0 before its first sync; or (0,)

    def __init__(
        self, kind: str, *, num_clients: int, strength: float, image_counts: Tensor | None
    ) -> None:
        """Keep the settings.

        Args:
            kind: "mean", "by_images" or "divergence_aware".
            num_clients: N.
            strength: own share mu at a client's first sync, in (0, 1]; divergence_aware.
            image_counts: (N,) images of each client; by_images.

        Raises:
            ValueError: by_images without counts.
        """
        super().__init__()
        if kind == "by_images" and image_counts is None:
            raise ValueError("averaging.kind=by_images: needs the number of each client's images")
        self.kind, self.strength = kind, strength
        counts = torch.zeros(0) if image_counts is None else image_counts.double()
        self.register_buffer("image_counts", counts, persistent=False)  # known from the data
        num_scales = num_clients if kind == "divergence_aware" else 0
        self.register_buffer(
            "scales",
            torch.zeros(num_scales, dtype=torch.float64),
            persistent=num_scales > 0,
        )

    def weights(self, pool: Tensor, places: Tensor | None) -> Tensor | None:
        """Return the weights of the mean over the stack, (P,); None where all count the same.

        Args:
            pool: (P,) ids of the clients in the stack.
            places: (p,) places in the stack that are there; None for all.
        """
        if self.kind != "by_images" and places is None:
            return None
        weights = torch.ones(len(pool), dtype=torch.float64, device=pool.device)
        if self.kind == "by_images":
            weights = self.image_counts[pool]
        if places is not None:
            there = torch.zeros_like(weights)
            there[places] = weights[places]
            weights = there
        return weights / weights.sum()

    def own_shares(self, clients: Tensor, divergence: Tensor) -> Tensor | None:
        """Return mu of some clients, (p,); None where none keeps anything of its own.

        Args:
            clients: (p,) ids.
            divergence: (p,) of their heads from the mean.
        """
        if self.kind != "divergence_aware":
            return None
        scales = self.scales[clients].to(divergence)
        # A client that equals the mean says nothing about lambda: its first sync is yet to come.
        first = (scales == 0) & (divergence > 0)
        scales = torch.where(first, self.strength / divergence, scales)
        self.scales[clients] = scales.to(self.scales)
        return (scales * divergence).clamp(max=1.0)
