"""Weighted kNN: closed forms, a plain-loop twin, and a bank as small as may be."""

import math

import pytest
import torch
from torch import Tensor

from mocosfl.evaluation import knn


def _clusters(num_images: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (num_images,), generator=generator)
    noise = 2.0 * torch.randn(num_images, 4, generator=generator)
    return torch.eye(4)[labels] + noise, labels


def _plain_scores(
    query: Tensor, bank: Tensor, labels: Tensor, num_neighbors: int, temperature: float
) -> list[float]:
    similarities = [float(query @ row / (query.norm() * row.norm())) for row in bank]
    nearest = sorted(range(len(bank)), key=lambda row: -similarities[row])[:num_neighbors]
    scores = [0.0] * 4
    for row in nearest:
        scores[int(labels[row])] += math.exp(similarities[row] / temperature)
    return scores


def test_votes_of_a_hand_made_bank() -> None:
    bank = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [5.0, 5.0]])
    scores = knn.knn_scores(
        torch.tensor([[7.0, 0.0]]),
        bank,
        torch.tensor([0, 1, 1, 1]),
        num_neighbors=3,
        temperature=0.5,
        num_classes=3,
    )
    expected = [math.exp(2.0), 1.0 + math.exp(math.sqrt(2.0)), 0.0]
    torch.testing.assert_close(scores, torch.tensor([expected]))


def test_scores_match_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, labels = _clusters(50)
    queries, _ = _clusters(9, seed=1)
    monkeypatch.setattr(knn, "_BLOCK_ELEMENTS", 200)  # 4 queries a block
    scores = knn.knn_scores(queries, bank, labels, num_neighbors=11, temperature=0.1, num_classes=4)
    expected = [_plain_scores(query, bank, labels, 11, 0.1) for query in queries]
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_leave_one_out_matches_a_bank_without_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = _clusters(60)
    hits = 0
    for row in range(60):
        others = [other for other in range(60) if other != row]
        scores = _plain_scores(features[row], features[others], labels[others], 7, 0.1)
        hits += scores.index(max(scores)) == int(labels[row])
    for elements in (1, 60 * 7, 2**24):
        monkeypatch.setattr(knn, "_BLOCK_ELEMENTS", elements)
        accuracy = knn.leave_one_out_top1(
            features, labels, num_neighbors=7, temperature=0.1, num_classes=4
        )
        assert accuracy == pytest.approx(hits / 60)
    assert 0.25 < hits / 60 < 1.0  # neither trivial nor chance


def test_leave_one_out_never_sees_the_image_itself() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1]])
    labels = torch.tensor([0, 1, 2, 3])  # with itself in the bank each would be right
    accuracy = knn.leave_one_out_top1(
        features, labels, num_neighbors=1, temperature=0.1, num_classes=4
    )
    assert accuracy == 0.0


def test_top1_is_the_fraction_of_right_queries() -> None:
    bank = torch.eye(2)
    accuracy = knn.knn_top1(
        torch.tensor([[3.0, 1.0], [1.0, 3.0], [2.0, 1.0], [0.0, 1.0]]),
        torch.tensor([0, 1, 1, 1]),
        bank,
        torch.tensor([0, 1]),
        num_neighbors=1,
        temperature=0.1,
        num_classes=2,
    )
    assert accuracy == 0.75


def test_bank_may_be_exactly_as_large_as_k() -> None:
    bank, labels = _clusters(5)
    common = {"temperature": 0.1, "num_classes": 4}
    assert knn.knn_scores(bank, bank, labels, num_neighbors=5, **common).shape == (5, 4)
    knn.leave_one_out_top1(bank, labels, num_neighbors=4, **common)
