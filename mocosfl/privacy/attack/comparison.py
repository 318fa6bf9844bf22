"""How close reconstructions come to the images: MSE, SSIM in two definitions, PSNR.

Legend: B images, C channels, H and W pixels; values in [0, 1].
"""

import math
from typing import NamedTuple

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from mocosfl.privacy.ssim import ssim


def psnr(mse: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB of mean squared errors, data range 1."""
    return -10 * mse.log10()


class Comparison(NamedTuple):
    """What each reconstruction is worth, (B,) float64 each.

    Attributes:
        mse: mean squared error over channels and pixels, at least 0.
        ssim: the published definition, see `ssim.py`; at most 1.
        ssim_torchmetrics: torchmetrics', which pads by reflection; for images of 6 pixels or more.
        psnr: peak signal-to-noise ratio in dB, infinite for equal images.
    """

    mse: Tensor
    ssim: Tensor
    ssim_torchmetrics: Tensor
    psnr: Tensor


class FiniteSpread(NamedTuple):
    """A quantity over images.

    Attributes:
        mean: over the images with a finite value; if there are none, infinite where all values
            are, else NaN.
        std: standard deviation over the same images (divided by their number); 0 for a single one,
            NaN for none.
        num_infinite: images left out because their value is infinite (PSNR of equal images).
    """

    mean: float
    std: float
    num_infinite: int


def compare_images(reconstructions: Tensor, images: Tensor) -> Comparison:
    """Compare reconstructions with what they are of, image by image.

    Args:
        reconstructions: (B, C, H, W) in [0, 1].
        images: (B, C, H, W) in [0, 1].

    Raises:
        ValueError: the shapes differ.
    """
    if reconstructions.shape != images.shape or images.dim() != 4:
        raise ValueError(
            f"compare: images of one shape (B, C, H, W) expected, got "
            f"{tuple(reconstructions.shape)} and {tuple(images.shape)}"
        )
    # In float64, so that the difference of two nearly equal images is not rounding.
    ours, theirs = reconstructions.detach().cpu().double(), images.detach().cpu().double()
    mse = (ours - theirs).square().mean(dim=(1, 2, 3))
    return Comparison(mse, ssim(ours, theirs), _ssim_torchmetrics(ours, theirs), psnr(mse))


def _ssim_torchmetrics(first: Tensor, second: Tensor) -> Tensor:
    values = structural_similarity_index_measure(first, second, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)  # a pair only where the whole map is asked for
    return values


def finite_spread(values: Tensor) -> FiniteSpread:
    """Return mean and standard deviation of values (B,), infinite ones counted and left out."""
    infinite = int(values.isinf().sum())
    finite = values[~values.isinf()]
    if len(finite) == 0:
        return FiniteSpread(math.inf if infinite else math.nan, math.nan, infinite)
    return FiniteSpread(float(finite.mean()), float(finite.std(correction=0)), infinite)


def spreads(comparison: Comparison) -> dict[str, FiniteSpread]:
    """Return mean and standard deviation of each quantity, by its name."""
    return {name: finite_spread(values) for name, values in comparison._asdict().items()}
