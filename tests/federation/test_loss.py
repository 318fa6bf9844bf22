"""The contrastive loss against closed forms."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl.federation.loss import contrastive_loss


def unit(*shape: int, seed: int) -> Tensor:
    """Return random vectors of length 1 in float64."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("num_negatives", [1, 7, 6000])
def test_loss_of_embeddings_that_tell_nothing_is_the_log_of_the_choices(num_negatives: int) -> None:
    same = torch.tensor([[0.6, 0.8]]).double()
    negatives = same.expand(1, num_negatives, 2)
    result = contrastive_loss(same, same, negatives=negatives, temperature=0.1)

    assert result.loss.item() == pytest.approx(math.log(num_negatives + 1), rel=1e-12)


def test_loss_of_hand_numbers() -> None:
    query = torch.tensor([[1, 0], [0, 1]], dtype=torch.float64)
    key = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
    negatives = torch.tensor([[[0, 1], [-1, 0]]], dtype=torch.float64)
    result = contrastive_loss(query, key, negatives=negatives, temperature=0.5)

    # Logits 2 * (0.6, 0, -1) and 2 * (0.6, 1, 0).
    first = math.log(math.exp(1.2) + 1 + math.exp(-2)) - 1.2
    second = math.log(math.exp(1.2) + math.exp(2) + 1) - 1.2
    assert result.loss.item() == pytest.approx((first + second) / 2, rel=1e-12)
    assert result.contrast_accuracy.item() == 0.5


def test_rows_of_a_part_see_their_own_queue_alone() -> None:
    query, key, negatives = unit(6, 4, seed=0), unit(6, 4, seed=1), unit(3, 5, 4, seed=2)
    together = contrastive_loss(query, key, negatives=negatives, temperature=0.2)
    alone = [
        contrastive_loss(
            query[2 * i : 2 * i + 2],
            key[2 * i : 2 * i + 2],
            negatives=negatives[i : i + 1],
            temperature=0.2,
        )
        for i in range(3)
    ]

    mean = sum(part.loss.item() for part in alone) / 3
    assert together.loss.item() == pytest.approx(mean, rel=1e-12)
    accuracy = sum(part.contrast_accuracy.item() for part in alone) / 3
    assert together.contrast_accuracy.item() == pytest.approx(accuracy)
    shared = contrastive_loss(query, key, negatives=negatives[:1], temperature=0.2)
    assert shared.loss.item() != pytest.approx(together.loss.item(), rel=1e-3)


def test_gradient_of_the_query_is_the_softmax_weighted_pull_and_push() -> None:
    query, key, negatives = unit(3, 4, seed=0), unit(3, 4, seed=1), unit(1, 5, 4, seed=2)
    query.requires_grad_()
    contrastive_loss(query, key, negatives=negatives, temperature=0.2).loss.backward()

    with torch.no_grad():
        candidates = torch.cat([key[:, None], negatives.expand(3, -1, -1)], 1)  # (B, 1 + L, D)
        weights = (torch.einsum("bd,bld->bl", query, candidates) / 0.2).softmax(1)
        weights[:, 0] -= 1
        expected = torch.einsum("bl,bld->bd", weights, candidates) / (0.2 * 3)
    torch.testing.assert_close(query.grad, expected)


def test_autocast_does_not_change_the_loss() -> None:
    query, key = unit(4, 8, seed=0).float(), unit(4, 8, seed=1).float()
    negatives = unit(1, 6, 8, seed=2).float()
    exact = contrastive_loss(query, key, negatives=negatives, temperature=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        result = contrastive_loss(query, key, negatives=negatives, temperature=0.1)

    assert result.loss.dtype == torch.float32
    assert torch.equal(result.loss, exact.loss)
