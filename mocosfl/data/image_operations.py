"""Image operations with a parameter of its own for every image of a block.

The numbers are torchvision's (transforms.v2.functional on floats), which takes one parameter for a
whole batch. All operations take and give planes (3, R, H, W) float32 in [0, 1], channel first, and
return a new tensor.

Only additions, products and the like of single rounding touch the pixels, no fused ones and no
reductions over rows, so that on a CPU the bits of an image don't depend on its block.

Legend: R images, H and W height and width, I and O side before and after resizing, in pixels.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601 with torchvision's digits


def resize_matrices(start: Tensor, length: Tensor, *, source_size: int, output_size: int) -> Tensor:
    """Interpolation matrices that cut [start, start + length) of an axis and resize it.

    Bilinear with antialiasing (PIL's triangle filter): each output pixel is the mean, weighted by
    a triangle around its centre, of the crop's pixels; the triangle is one source pixel wide
    to each side, or one output pixel when shrinking.

    Args:
        start: (R,) int64, first pixel of each crop.
        length: (R,) int64, pixels of each crop, at least 1.
        source_size: I.
        output_size: O.

    Returns:
        (R, O, I) float32; rows sum to 1 and are 0 outside the crop.

    Source: https://github.com/python-pillow/Pillow/blob/main/src/libImaging/Resample.c
    """
    scale = (length / output_size)[:, None]  # (R, 1) source pixels an output pixel
    steps = torch.arange(output_size, device=start.device) + 0.5
    pixels = torch.arange(source_size, device=start.device)
    centres = start[:, None] + steps * scale  # (R, O)
    distance = (pixels + 0.5 - centres[:, :, None]).abs_()  # (R, O, I)
    inside = (pixels >= start[:, None]) & (pixels < (start + length)[:, None])  # (R, I)
    weights = distance.div_(-scale.clamp(min=1.0)[:, :, None]).add_(1.0).clamp_(min=0.0)
    weights.mul_(inside[:, None, :])
    matrices: Tensor = weights.div_(weights.sum(dim=2, keepdim=True))
    return matrices


def resize(images: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Resize with a pair of matrices an image.

    Args:
        images: (R, 3, H, W) uint8.
        down: (R, O, H) of the vertical axis.
        across: (R, O, W) of the horizontal axis.

    Returns:
        Planes (3, R, O, O) float32 in [0, 1].
    """
    # The scale goes into the small matrices, not into every pixel.
    horizontal = (across / 255.0).transpose(1, 2).contiguous()  # (R, W, O)
    sources = images.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format)
    num_rows, output_size, _ = down.shape
    planes = sources.new_empty(3, num_rows, output_size, output_size)
    for source, plane in zip(sources, planes, strict=True):
        torch.bmm(down, torch.bmm(source, horizontal), out=plane)
    planes.clamp_(max=1.0)  # rounding can leave 1 + 1e-7
    return planes


def _luma(planes: Tensor) -> Tensor:
    """Brightness of each pixel, (R, H, W)."""
    red, green, blue = planes
    luma: Tensor = (red * _LUMA[0]).add_(green * _LUMA[1]).add_(blue * _LUMA[2])
    return luma


def _blend(planes: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """clamp(factor * planes + (1 - factor) * other)."""
    share = factor[:, None, None]  # (R, 1, 1)
    return (planes * share).add_(other * (1.0 - share)).clamp_(0.0, 1.0)


def adjust_brightness(planes: Tensor, factor: Tensor) -> Tensor:
    """Scale towards black; factor (R,) at least 0, 1 changes nothing."""
    return (planes * factor[:, None, None]).clamp_(0.0, 1.0)


def adjust_contrast(planes: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean brightness; factor (R,) at least 0, 1 changes nothing."""
    # Two means: a single one over a big image is cut in pieces by the number of threads.
    mean = _luma(planes).mean(dim=2, keepdim=True).mean(dim=1, keepdim=True)  # (R, 1, 1)
    return _blend(planes, mean, factor)


def adjust_saturation(planes: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image; factor (R,) at least 0, 1 changes nothing."""
    return _blend(planes, _luma(planes), factor)


def to_grey(planes: Tensor) -> Tensor:
    """Give all three channels the brightness."""
    return _luma(planes).expand_as(planes)


def adjust_hue(planes: Tensor, turn: Tensor) -> Tensor:
    """Turn the colour circle by a fraction (R,) in [-0.5, 0.5] of it; 0 changes nothing.

    Source: the hexagon model in one formula a channel,
    https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative. With hue h in sixths of the
    circle, value v (largest channel) and chroma c (largest - smallest), a channel is
    v - c * clamp(2 - |h - n|, 0, 1), where n is the hue opposite to the channel and |.| goes
    the short way round.
    """
    red, green, blue = planes
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # Which channel is the largest decides the third of the circle; ties agree on both sides.
    hue = torch.where(value == green, (blue - red), (red - green))
    third = torch.where(value == green, 2.0, 4.0)
    is_red = value == red
    hue = torch.where(is_red, green - blue, hue)
    third = torch.where(is_red, 0.0, third)
    hue = hue.div_(chroma.clamp(min=1e-12)).add_(third).div_(6.0).add_(turn[:, None, None])
    # In whole circles now. Opposite to red is cyan, 3/6; to green 5/6; to blue 1/6.
    opposite = planes.new_tensor([3.0, 5.0, 1.0]).div_(6.0)
    apart = hue - opposite[:, None, None, None]  # (3, R, H, W)
    apart.sub_(apart.round()).abs_()
    return apart.mul_(-6.0).add_(2.0).clamp_(0.0, 1.0).mul_(-chroma).add_(value)


def blur_matrices(sigma: Tensor, size: int) -> Tensor:
    """Matrices (R, size, size) that blur an axis by a Gaussian, borders reflected.

    The kernel has 2 * size - 1 taps, so nothing of the Gaussian is cut until its reflection
    would be reflected again.

    Args:
        sigma: (R,) standard deviation, pixels, > 0.
        size: length of the axis, pixels.
    """
    last = size - 1
    distance = torch.arange(size, device=sigma.device)
    weights = torch.exp(-0.5 * (distance / sigma[:, None]).square())  # (R, size)
    weights = weights / (2.0 * weights.sum(dim=1, keepdim=True) - 1.0)  # the tap 0 counts once
    weights = pad(weights, (0, 1))  # at index `size` the weight is 0
    row, column = distance[:, None], distance
    direct = (row - column).abs()
    before = (row + column).where(column > 0, size)  # through the first pixel
    after = (2 * last - row - column).where(column < last, size)  # through the last
    taps = torch.stack([direct, before, after]).clamp_(max=size).flatten(1)
    matrices = weights[:, taps[0]] + weights[:, taps[1]] + weights[:, taps[2]]
    return matrices.view(-1, size, size)


def gaussian_blur(planes: Tensor, sigma: Tensor) -> Tensor:
    """Blur with sigma (R,) > 0 pixels, borders reflected; height and width must be equal."""
    matrices = blur_matrices(sigma, planes.shape[2])
    result = torch.empty_like(planes)
    for source, plane in zip(planes, result, strict=True):
        torch.bmm(torch.bmm(matrices, source), matrices.mT, out=plane)
    return result
