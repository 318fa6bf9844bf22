"""Means of heads and their divergence, by hand."""

import pytest
import torch

from mocosfl.federation.averaging import Averager, divergences, mean_of_rows, spread


def test_weighted_mean_is_the_sum_of_weighted_rows() -> None:
    rows = torch.tensor([[1.0, 0.0], [3.0, 4.0], [100.0, 100.0]])
    mean = mean_of_rows(rows, torch.tensor([0.25, 0.75, 0.0]))
    torch.testing.assert_close(mean, torch.tensor([2.5, 3.0]))


def test_weighted_mean_of_equal_rows_is_that_row_bit_by_bit() -> None:
    row = torch.randn(50, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25], dtype=torch.float64)
    assert torch.equal(mean_of_rows(row.expand(5, -1).clone(), weights), row)


def test_divergence_is_the_sum_of_the_tensors_norms() -> None:
    heads = {"a": torch.tensor([[3.0, 4.0], [0.0, 0.0]]), "b": torch.tensor([[[2.0]], [[1.0]]])}
    mean = {"a": torch.zeros(2), "b": torch.ones(1, 1)}
    assert divergences(heads, mean).tolist() == [6.0, 0.0]


def test_spread_is_over_the_clients() -> None:
    found = spread(torch.tensor([1.0, 3.0, 5.0]))
    assert [float(v) for v in found] == pytest.approx([3.0, (8 / 3) ** 0.5, 1.0, 5.0])


def test_own_share_is_the_strength_at_the_first_sync_and_grows_with_divergence_up_to_one() -> None:
    averager = Averager("divergence_aware", num_clients=4, strength=0.5, image_counts=None)
    clients = torch.tensor([2, 0])
    first = averager.own_shares(clients, torch.tensor([4.0, 8.0]))
    second = averager.own_shares(clients, torch.tensor([2.0, 80.0]))
    assert first is not None
    assert second is not None
    assert first.tolist() == [0.5, 0.5]
    assert second.tolist() == [0.25, 1.0]


def test_client_that_equals_the_mean_at_its_first_sync_gets_its_scale_later() -> None:
    averager = Averager("divergence_aware", num_clients=1, strength=0.5, image_counts=None)
    shares = [averager.own_shares(torch.tensor([0]), torch.tensor([d])) for d in (0.0, 3.0)]
    assert [None if s is None else s.tolist() for s in shares] == [[0.0], [0.5]]


@pytest.mark.parametrize("kind", ["mean", "by_images"])
def test_other_averages_leave_clients_nothing_of_their_own(kind: str) -> None:
    averager = Averager(kind, num_clients=2, strength=0.5, image_counts=torch.tensor([1, 3]))
    assert averager.own_shares(torch.tensor([0, 1]), torch.tensor([1.0, 1.0])) is None


def test_weights_leave_out_who_is_not_there() -> None:
    averager = Averager("by_images", num_clients=3, strength=1.0, image_counts=torch.arange(1, 4))
    weights = averager.weights(torch.tensor([2, 0, 1]), torch.tensor([0, 1]))
    assert weights is not None
    assert weights.tolist() == [0.75, 0.25, 0.0]


def test_average_by_images_without_counts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"averaging\.kind=by_images: needs"):
        Averager("by_images", num_clients=2, strength=1.0, image_counts=None)
