"""Random resized crops: where each image is cut, from uniform numbers.

Legend: R images; sizes and corners are (vertical, horizontal) pixels.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Crops(NamedTuple):
    """Places of R crops, both (R, 2) int64, pixels."""

    corners: Tensor  # top, left
    sizes: Tensor  # height, width; at least 1


def random_crops(
    area: Tensor,
    ratio: Tensor,
    position: Tensor,
    *,
    scales: tuple[float, float],
    ratios: tuple[float, float],
    source_size: int | Tensor,
) -> Crops:
    """Cut each image: the first of the tries that fits, at a random place.

    Where none fits: torchvision's fallback, the largest centred crop of the allowed ratio nearest
    to the image's own.

    Args:
        area: (R, tries) float64 in [0, 1), a number for each try.
        ratio: (R, tries) likewise.
        position: (R, 2) likewise, vertical and horizontal.
        scales: smallest and largest area of a crop, fractions of the image.
        ratios: smallest and largest width / height.
        source_size: side of the square images, or (R, 2) int64 heights and widths, or (1, 2) of
            all; pixels.
    """
    source = _heights_and_widths(source_size)
    (scale_min, scale_max), (log_min, log_max) = scales, map(math.log, ratios)
    areas = source.prod(dim=1, keepdim=True) * (scale_min + (scale_max - scale_min) * area)
    drawn = (log_min + (log_max - log_min) * ratio).exp()
    tries = torch.stack([areas / drawn, areas * drawn], dim=2).sqrt().round()  # (R, tries, 2)
    fits = ((tries >= 1) & (tries <= source[:, None])).all(dim=2)
    first = fits.to(torch.uint8).argmax(dim=1)
    found = fits.any(dim=1, keepdim=True)
    sizes = tries[torch.arange(len(tries)), first].where(found, _largest(source, ratios))
    room = source - sizes
    corners = (position * (room + 1)).floor().where(found, (room / 2).floor())
    return Crops(corners.long(), sizes.long())


def _heights_and_widths(source_size: int | Tensor) -> Tensor:
    """Return (R, 2), or (1, 2) for all images, float64."""
    if isinstance(source_size, Tensor):
        return source_size.double()
    return torch.full((1, 2), source_size, dtype=torch.float64)


def _largest(source: Tensor, ratios: tuple[float, float]) -> Tensor:
    """Sizes of the largest crops whose ratio is allowed and nearest to the image's own."""
    height, width = source.unbind(dim=1)
    closest = (width / height).clamp(*ratios)
    sides = [torch.minimum(height, width / closest), torch.minimum(width, height * closest)]
    return torch.stack(sides, dim=1).round().clamp(min=1)
