"""How close reconstructions come: closed forms and torchmetrics."""

import math

import pytest
import torch
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from mocosfl.privacy.attack.comparison import compare_images, finite_spread, psnr, spreads
from mocosfl.privacy.ssim import ssim
from tests.support.sample_crops import crops


def test_mse_and_psnr_of_a_constant_difference_are_its_square_and_its_decibels():
    images = torch.full((2, 3, 16, 16), 0.5)
    found = compare_images(images + torch.tensor([0.1, -0.2]).view(2, 1, 1, 1), images)
    torch.testing.assert_close(found.mse, torch.tensor([0.01, 0.04]).double(), rtol=1e-5, atol=0)
    expected = torch.tensor([20.0, -10 * math.log10(0.04)]).double()
    torch.testing.assert_close(found.psnr, expected, rtol=1e-5, atol=0)


def test_psnr_is_torchmetrics():
    images = crops(2, 24, seed=0)
    others = images.flip(2)
    for ours, image, other in zip(compare_images(others, images).psnr, images, others, strict=True):
        theirs = peak_signal_noise_ratio(other.double(), image.double(), data_range=1.0)
        assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


def test_both_definitions_of_ssim_are_reported_image_by_image():
    images = crops(3, 32, seed=0)
    others = images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    others = others.clamp(0, 1)
    found = compare_images(others, images)
    torch.testing.assert_close(found.ssim, ssim(others.double(), images.double()))
    theirs = structural_similarity_index_measure(others, images, data_range=1.0, reduction="none")
    assert isinstance(theirs, torch.Tensor)
    torch.testing.assert_close(found.ssim_torchmetrics, theirs.double(), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found.ssim, found.ssim_torchmetrics, atol=1e-3)


def test_a_single_image_keeps_its_dimension():
    image = crops(1, 16, seed=0)
    assert all(values.shape == (1,) for values in compare_images(image, image))


def test_equal_images_have_an_infinite_psnr_that_is_counted_and_not_averaged():
    images = crops(3, 16, seed=0)
    others = images.clone()
    others[1:] = 1 - others[1:]
    found = compare_images(others, images)
    assert found.psnr[0] == math.inf
    summary = spreads(found)["psnr"]
    assert summary.num_infinite == 1
    assert summary.mean == pytest.approx(float(found.psnr[1:].mean()))
    assert spreads(compare_images(images, images))["psnr"].mean == math.inf
    assert spreads(compare_images(images, images))["ssim"].mean == pytest.approx(1)


def test_spread_is_mean_and_standard_deviation_over_the_images_at_hand():
    found = finite_spread(torch.tensor([1.0, 3.0, 5.0, 7.0]))
    assert found == pytest.approx((4.0, math.sqrt(5), 0))
    assert finite_spread(torch.tensor([2.5])) == (2.5, 0.0, 0)


def test_an_undefined_value_is_not_hidden_in_the_mean():
    assert math.isnan(finite_spread(torch.tensor([1.0, math.nan])).mean)


def test_psnr_falls_by_ten_decibels_where_the_error_is_tenfold():
    values = psnr(torch.tensor([0.001, 0.01]))
    assert float(values[0] - values[1]) == pytest.approx(10, rel=1e-5)


def test_images_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        compare_images(torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8))
