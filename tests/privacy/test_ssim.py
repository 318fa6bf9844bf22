"""The published SSIM against a direct implementation, torchmetrics and finite differences."""

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from mocosfl.privacy.ssim import SIGMA, WINDOW, ssim
from tests.support.sample_crops import crops

HALF = WINDOW // 2


def window() -> Tensor:
    """Return the 2-D Gaussian (11, 11) with sum 1."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - HALF
    squares = offsets[:, None] ** 2 + offsets[None] ** 2
    weights = torch.exp(-squares / (2 * SIGMA**2))
    return weights / weights.sum()


def map_by_loops(first: Tensor, second: Tensor) -> Tensor:
    """Return the SSIM at each pixel of one channel (H, W), window by window."""
    weights = window()
    padded = [torch.nn.functional.pad(plane, (HALF,) * 4) for plane in (first, second)]
    result = torch.zeros_like(first)
    for y in range(first.shape[0]):
        for x in range(first.shape[1]):
            a, b = (plane[y : y + WINDOW, x : x + WINDOW] for plane in padded)
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            # Moments about zero: outside the picture there are zeros, whose weight counts.
            var_a = (weights * a * a).sum() - mean_a**2
            var_b = (weights * b * b).sum() - mean_b**2
            covariance = (weights * a * b).sum() - mean_a * mean_b
            luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
            result[y, x] = luminance * (2 * covariance + 9e-4) / (var_a + var_b + 9e-4)
    return result


def test_equals_a_direct_implementation_window_by_window():
    images = crops(2, 16, seed=0).double()
    others = images.roll(1, dims=3) * 0.9
    expected = [
        torch.stack([map_by_loops(a, b) for a, b in zip(one, other, strict=True)]).mean()
        for one, other in zip(images, others, strict=True)
    ]
    torch.testing.assert_close(ssim(images, others), torch.stack(expected), rtol=1e-9, atol=1e-12)


def test_equals_torchmetrics_away_from_the_border():
    images = crops(1, 32, seed=0).double()
    others = images.roll(1, dims=3) * 0.9
    _, theirs = structural_similarity_index_measure(
        others, images, data_range=1.0, reduction="none", return_full_image=True
    )
    ours = torch.stack([map_by_loops(a, b) for a, b in zip(images[0], others[0], strict=True)])
    inner = slice(HALF, -HALF)
    torch.testing.assert_close(
        ours[:, inner, inner], theirs[0, :, inner, inner], rtol=1e-6, atol=1e-9
    )
    assert not torch.allclose(ours, theirs[0], atol=1e-3)  # at the border they are two things


def test_equal_images_have_one_and_the_order_does_not_matter():
    images = crops(2, 16, seed=0).double()
    others = 1 - images
    torch.testing.assert_close(ssim(images, images), torch.ones(2).double())
    torch.testing.assert_close(ssim(images, others), ssim(others, images))
    assert (ssim(images, others) < 0.5).all()


def test_gradient_equals_finite_differences_in_both_images():
    images = crops(1, 12, seed=0).double()[:, :, :8, :8]
    first = images.clone().requires_grad_()
    second = (images * 0.8 + 0.05).requires_grad_()
    assert torch.autograd.gradcheck(ssim, (first, second))


def test_images_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        ssim(torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8))
