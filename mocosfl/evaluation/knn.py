"""Weighted k-nearest-neighbours accuracy of features: how classes cluster, without any training.

Source: Wu et al., "Unsupervised feature learning via non-parametric instance discrimination",
CVPR 2018, section 3.4: each of the k nearest images votes for its class with weight
exp(cosine similarity / temperature).

Legend: Q queries, N images in the bank, D features, C classes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

_BLOCK_ELEMENTS = 2**24  # similarities held at once, 64 MiB


def knn_scores(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    *,
    num_neighbors: int,
    temperature: float,
    num_classes: int,
) -> Tensor:
    """Sum the votes of each query's nearest images of the bank.

    Args:
        queries: (Q, D), any length; compared by direction.
        bank: (N, D).
        bank_labels: (N,) int64 in [0, num_classes).
        num_neighbors: k, 1 to N.
        temperature: of the votes, > 0.
        num_classes: C.

    Returns:
        (Q, C) sums of votes, at least 0; the largest is the predicted class.
    """
    assert 1 <= num_neighbors <= len(bank)
    bank = normalize(bank, dim=1)
    scores = []
    for rows in _blocks(len(queries), len(bank)):
        similarity = normalize(queries[rows], dim=1) @ bank.T
        scores.append(_votes(similarity, bank_labels, num_neighbors, temperature, num_classes))
    return torch.cat(scores) if scores else queries.new_zeros(0, num_classes)


def knn_top1(
    queries: Tensor,
    query_labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    *,
    num_neighbors: int,
    temperature: float,
    num_classes: int,
) -> float:
    """Fraction in [0, 1] of the queries whose class the bank predicts; arguments as `knn_scores`.

    Args:
        queries: (Q, D), Q at least 1.
        query_labels: (Q,) int64.
        bank: (N, D).
        bank_labels: (N,) int64.
        num_neighbors: k, 1 to N.
        temperature: of the votes, > 0.
        num_classes: C.
    """
    scores = knn_scores(
        queries,
        bank,
        bank_labels,
        num_neighbors=num_neighbors,
        temperature=temperature,
        num_classes=num_classes,
    )
    return _top1(scores, query_labels)


def leave_one_out_top1(
    features: Tensor,
    labels: Tensor,
    *,
    num_neighbors: int,
    temperature: float,
    num_classes: int,
) -> float:
    """Accuracy of kNN where every image is asked of all the others, so that none is set aside.

    Args:
        features: (N, D), N at least 2.
        labels: (N,) int64 in [0, num_classes).
        num_neighbors: k, 1 to N - 1.
        temperature: of the votes, > 0.
        num_classes: C.

    Returns:
        Fraction in [0, 1].
    """
    assert 1 <= num_neighbors < len(features)
    bank = normalize(features, dim=1)
    scores = []
    for rows in _blocks(len(bank), len(bank)):
        similarity = bank[rows] @ bank.T  # (block, N)
        similarity.diagonal(offset=rows.start).fill_(-torch.inf)
        scores.append(_votes(similarity, labels, num_neighbors, temperature, num_classes))
    return _top1(torch.cat(scores), labels)


def _blocks(num_queries: int, bank_size: int) -> Iterator[slice]:
    block = max(1, _BLOCK_ELEMENTS // max(bank_size, 1))
    starts = range(0, num_queries, block)
    return (slice(start, min(start + block, num_queries)) for start in starts)


def _votes(
    similarity: Tensor, labels: Tensor, num_neighbors: int, temperature: float, num_classes: int
) -> Tensor:
    """(Q, N) cosine similarities -> (Q, C) sums of votes."""
    nearest = similarity.topk(num_neighbors, dim=1, sorted=False)
    votes = (nearest.values / temperature).exp()  # (Q, k)
    scores = similarity.new_zeros(len(similarity), num_classes)
    return scores.scatter_add_(1, labels[nearest.indices], votes)


def _top1(scores: Tensor, labels: Tensor) -> float:
    return float((scores.argmax(dim=1) == labels).float().mean())
