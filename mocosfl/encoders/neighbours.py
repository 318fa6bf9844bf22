"""Which pictures an encoder finds alike: nearest neighbours by cosine similarity.

Legend: N rows of features, F features, Q queries, k neighbours of each.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mocosfl.system.randomness import numpy_generator

_Ints = npt.NDArray[np.int64]
_BLOCK_ROWS = 8192  # of features in memory at once: 64 MiB of 2,048 features


class Neighbours(NamedTuple):
    """The nearest rows of some rows, the nearest first."""

    queries: _Ints  # (Q,)
    rows: _Ints  # (Q, k); never the query itself
    similarities: npt.NDArray[np.float32]  # (Q, k) cosines


def choose_queries(num_rows: int, num_queries: int, seed: int) -> _Ints:
    """Choose rows, one by chance from each of Q equal stretches, so that they are spread evenly.

    Args:
        num_rows: N, at least 1.
        num_queries: Q; all rows where there are fewer.
        seed: of the choice.
    """
    edges = np.linspace(0, num_rows, min(num_queries, num_rows) + 1).astype(np.int64)
    return numpy_generator(seed, "queries").integers(edges[:-1], edges[1:])


def check_neighbours(num_neighbors: int, num_pictures: int) -> None:
    """Check that each picture has so many others.

    Raises:
        ValueError: it has fewer.
    """
    others = num_pictures - 1
    if num_neighbors > others:
        raise ValueError(
            f"num_neighbors={num_neighbors}: {num_pictures} pictures have {others} others each; "
            "choose at most so many, or 0 for no picture sheet"
        )


def nearest_neighbours(
    features: npt.NDArray[np.float32], queries: _Ints, num_neighbors: int
) -> Neighbours:
    """Find the rows that are most alike some of them.

    Args:
        features: (N, F), may be memory-mapped.
        queries: (Q,) rows.
        num_neighbors: k, at least 1.

    Raises:
        ValueError: each has fewer than k others.
    """
    check_neighbours(num_neighbors, len(features))
    wanted = normalize(torch.from_numpy(np.array(features[queries])), dim=1)  # (Q, F)
    best = torch.full((len(queries), num_neighbors), -torch.inf)
    rows = torch.full((len(queries), num_neighbors), -1)
    for start in range(0, len(features), _BLOCK_ROWS):
        block = torch.from_numpy(np.array(features[start : start + _BLOCK_ROWS]))
        similarity = wanted @ normalize(block, dim=1).T  # (Q, rows of the block)
        _leave_out(similarity, queries - start)
        numbers = torch.arange(start, start + len(block)).expand_as(similarity)
        best, kept = torch.cat([best, similarity], 1).topk(num_neighbors, dim=1)
        rows = torch.cat([rows, numbers], 1).gather(1, kept)
    return Neighbours(queries, rows.numpy(), best.numpy())


def _leave_out(similarity: Tensor, places: _Ints) -> None:
    """Take each query out of its own row of similarities, where it is in the block."""
    inside = np.flatnonzero((places >= 0) & (places < similarity.shape[1]))
    similarity[inside, places[inside]] = -torch.inf
