"""Weight standardisation and GroupNorm against closed forms."""

import pytest
import torch

from mocosfl.models.layers import StandardisedConv2d, group_norm, standardise
from tests.support.small_networks import images


def test_standardise_gives_each_filter_zero_mean_and_unit_unbiased_deviation() -> None:
    weight = torch.tensor([1.0, 3.0, 5.0, 7.0, -2.0, 2.0, -2.0, 2.0], dtype=torch.float64)
    result = standardise(weight.reshape(2, 1, 2, 2)).reshape(2, 4)

    first = torch.tensor([-3.0, -1.0, 1.0, 3.0], dtype=torch.float64) / ((20 / 3) ** 0.5 + 1e-5)
    second = torch.tensor([-2.0, 2.0, -2.0, 2.0], dtype=torch.float64) / ((16 / 3) ** 0.5 + 1e-5)
    torch.testing.assert_close(result, torch.stack([first, second]), rtol=1e-12, atol=0)


def test_standardise_treats_stacked_weights_one_by_one() -> None:
    weights = torch.randn(3, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(standardise(weights), torch.stack([standardise(w) for w in weights]))


def test_standardised_convolution_ignores_scale_and_shift_of_its_weight() -> None:
    conv = StandardisedConv2d(3, 4, 3).double()
    before = conv(images())
    with torch.no_grad():
        conv.weight.mul_(50.0).add_(3.0)

    torch.testing.assert_close(conv(images()), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("channels", "groups"), [(3, 1), (4, 1), (8, 2), (64, 16), (512, 128)])
def test_group_norm_has_four_channels_a_group(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups
