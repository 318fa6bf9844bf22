"""Random views on a device without torch: numpy and Pillow.

The same distribution as `mocosfl.data.augmentation`, which has the reasons, in the same two
halves: `draw_pillow_views` turns a generator into numbers, `make_pillow_views` is a function of
images and numbers. The rule from uniform numbers to parameters is the same, number by number, so
the same uniform numbers give the same view, to float rounding. The tests compare every operation,
the rule, the distribution of what is drawn, and the statistics of whole views.

How it is small: one image at a time, and nothing is held but a few of its planes. Pillow resizes
each colour as a plane of floats (mode F), because its pictures of 8 bits are rounded twice in a
resize; the training's views are not rounded. The crop is cut out before it is resized: through
`resize(box=)` pixels outside of the crop reach into its border.

Differs from mocosfl.data.augmentation: the blur drops the taps beyond 6 sigma, less than 1e-8 of
the weight, which float32 doesn't hold. The numbers come from a generator of NumPy in place of
torch's, so a client that runs this sees other draws than the simulation does from the same seed.

Legend: R images, H and W source height and width, S output size, all in pixels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from mocosfl.edge import federation_pb2 as pb

Planes = npt.NDArray[np.float32]  # of one image, (3, height, width) in [0, 1]
Pixels = npt.NDArray[np.uint8]  # (R, H, W, 3)

_CROP_TRIES = 10
COLUMNS = {  # what each uniform number of an image is for; mocosfl.data.augmentation's
    "area": _CROP_TRIES,
    "ratio": _CROP_TRIES,
    "position": 2,
    "factors": 4,
    "order": 4,
    "jitter": 1,
    "grey": 1,
    "blur": 1,
    "sigma": 1,
    "flip": 1,
}
NUM_UNIFORMS = sum(COLUMNS.values())
_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)[:, None, None]  # ITU-R 601
_OPPOSITE = np.array([3.0, 5.0, 1.0], np.float32)[:, None, None] / 6  # hues: cyan, magenta, blue
_BLUR_SIGMAS = 6  # of a Gaussian on each side


class DrawnView(NamedTuple):
    """The drawn numbers of one view of one image."""

    top: int  # of the crop, pixels
    left: int
    height: int  # at least 1
    width: int
    factors: tuple[float, ...]  # brightness, contrast, saturation, hue
    order: tuple[int, ...]  # a permutation: order[i] is the colour operation done i-th
    jitter: bool
    grey: bool
    blur: bool
    sigma: float  # pixels of the output
    flip: bool


def draw_pillow_views(
    views: pb.Views, generator: np.random.Generator, *, num_images: int, source: tuple[int, int]
) -> list[DrawnView]:
    """Draw the parameters of one view of each image.

    Args:
        views: the distribution.
        generator: it advances by num_images * NUM_UNIFORMS numbers.
        num_images: R.
        source: H and W of the images.
    """
    uniforms = generator.random((num_images, NUM_UNIFORMS))
    return [view_from_uniforms(views, row.tolist(), source=source) for row in uniforms]


def view_from_uniforms(
    views: pb.Views, uniforms: Sequence[float], *, source: tuple[int, int]
) -> DrawnView:
    """Turn an image's NUM_UNIFORMS numbers in [0, 1) into the parameters of a view."""
    numbers = iter(uniforms)
    draw = {name: [next(numbers) for _ in range(count)] for name, count in COLUMNS.items()}
    top, left, height, width = _crop_place(
        views, draw["area"], draw["ratio"], draw["position"], source
    )
    strengths = (views.brightness, views.contrast, views.saturation)
    low = [max(0.0, 1.0 - strength) for strength in strengths] + [-views.hue]
    high = [1.0 + strength for strength in strengths] + [views.hue]
    sigma_range = views.blur_sigma_max - views.blur_sigma_min
    return DrawnView(
        top=top,
        left=left,
        height=height,
        width=width,
        factors=tuple(a + (b - a) * u for a, b, u in zip(low, high, draw["factors"], strict=True)),
        order=tuple(sorted(range(4), key=draw["order"].__getitem__)),
        jitter=draw["jitter"][0] < views.jitter_probability,
        grey=draw["grey"][0] < views.grey_probability,
        blur=draw["blur"][0] < views.blur_probability,
        sigma=views.blur_sigma_min + sigma_range * draw["sigma"][0],
        flip=draw["flip"][0] < views.flip_probability,
    )


def _crop_place(
    views: pb.Views,
    area: Sequence[float],
    ratio: Sequence[float],
    position: Sequence[float],
    source: tuple[int, int],
) -> tuple[int, int, int, int]:
    """Return top, left, height and width: the first try that fits, at a random place.

    Where none fits: the largest centred crop whose ratio is allowed and nearest to the image's.
    """
    scale_range = views.crop_scale_max - views.crop_scale_min
    log_min, log_max = math.log(views.ratio_min), math.log(views.ratio_max)
    for area_number, ratio_number in zip(area, ratio, strict=True):
        pixels = source[0] * source[1] * (views.crop_scale_min + scale_range * area_number)
        drawn = math.exp(log_min + (log_max - log_min) * ratio_number)  # width / height
        height, width = round(math.sqrt(pixels / drawn)), round(math.sqrt(pixels * drawn))
        if 1 <= height <= source[0] and 1 <= width <= source[1]:
            room = (source[0] - height + 1, source[1] - width + 1)
            return int(position[0] * room[0]), int(position[1] * room[1]), height, width
    closest = min(max(source[1] / source[0], views.ratio_min), views.ratio_max)
    height = max(1, round(min(source[0], source[1] / closest)))
    width = max(1, round(min(source[1], source[0] * closest)))
    return (source[0] - height) // 2, (source[1] - width) // 2, height, width


def make_pillow_views(
    images: Pixels,
    parameters: Sequence[DrawnView],
    *,
    output_size: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> npt.NDArray[np.float32]:
    """Make one view of each image.

    Args:
        images: (R, H, W, 3) uint8.
        parameters: of R views.
        output_size: S.
        mean: of each channel, images scaled to [0, 1].
        std: of each channel, > 0.

    Returns:
        Views (R, 3, S, S), normalised.
    """
    result = np.empty((len(images), 3, output_size, output_size), np.float32)
    centre = np.asarray(mean, np.float32)[:, None, None]
    scale = np.asarray(std, np.float32)[:, None, None]
    for image, own, view in zip(images, parameters, result, strict=True):
        np.divide(_planes(image, own, output_size) - centre, scale, out=view)
    return result


def _planes(image: Pixels, own: DrawnView, output_size: int) -> Planes:
    planes = crop(image, own, output_size)
    if own.jitter:
        for index in own.order:
            planes = COLOUR_OPERATIONS[index](planes, own.factors[index])
    if own.grey:
        planes = in_grey(planes)
    return blurred(planes, own.sigma) if own.blur else planes


def crop(image: Pixels, own: DrawnView, output_size: int) -> Planes:
    """Cut, resize and flip an image (H, W, 3): bilinear with antialiasing."""
    cut = image[own.top : own.top + own.height, own.left : own.left + own.width]
    size = (output_size, output_size)
    planes = np.empty((3, *size), np.float32)
    for channel, plane in enumerate(planes):
        picture = Image.fromarray(cut[:, :, channel].astype(np.float32))
        plane[:] = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
    planes = _clamp(planes / np.float32(255))  # rounding can leave 1 + 1e-7
    return planes[:, :, ::-1] if own.flip else planes


def _clamp(planes: Planes) -> Planes:
    clamped: Planes = np.clip(planes, 0, 1)
    return clamped


def _luma(planes: Planes) -> Planes:
    luma: Planes = (planes * _LUMA).sum(axis=0)
    return luma


def _blend(planes: Planes, other: Planes | np.float32, factor: float) -> Planes:
    """clamp(factor * planes + (1 - factor) * other)."""
    share, rest = np.float32(factor), np.float32(1.0 - factor)
    return _clamp(planes * share + other * rest)


def with_brightness(planes: Planes, factor: float) -> Planes:
    """Scale towards black; a factor of 1 changes nothing."""
    return _clamp(planes * np.float32(factor))


def with_contrast(planes: Planes, factor: float) -> Planes:
    """Blend with the image's mean brightness; a factor of 1 changes nothing."""
    return _blend(planes, _luma(planes).mean(), factor)


def with_saturation(planes: Planes, factor: float) -> Planes:
    """Blend with the grey image; a factor of 1 changes nothing."""
    return _blend(planes, _luma(planes), factor)


def with_hue(planes: Planes, turn: float) -> Planes:
    """Turn the colour circle by a fraction in [-0.5, 0.5]; `image_operations` has the formula."""
    red, green, blue = planes
    value = planes.max(axis=0)
    chroma = value - planes.min(axis=0)
    hue = np.where(value == green, blue - red, red - green)  # in sixths of the circle
    third = np.where(value == green, np.float32(2), np.float32(4))
    is_red = value == red
    hue = np.where(is_red, green - blue, hue)
    third = np.where(is_red, np.float32(0), third)
    hue = (hue / np.maximum(chroma, np.float32(1e-12)) + third) / 6 + np.float32(turn)
    apart = hue - _OPPOSITE
    apart = np.abs(apart - np.rint(apart))
    turned: Planes = value - chroma * _clamp(2 - 6 * apart)
    return turned


COLOUR_OPERATIONS = (with_brightness, with_contrast, with_saturation, with_hue)


def in_grey(planes: Planes) -> Planes:
    """Give all three channels the brightness."""
    return np.broadcast_to(_luma(planes), planes.shape)


def blurred(planes: Planes, sigma: float) -> Planes:
    """Blur with a Gaussian of sigma pixels, borders reflected."""
    radius = min(planes.shape[1] - 1, math.ceil(_BLUR_SIGMAS * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for _ in range(2):  # down, then across
        padded = np.pad(planes, ((0, 0), (radius, radius), (0, 0)), mode="reflect")
        height = planes.shape[1]
        planes = np.zeros_like(planes)
        for start, weight in enumerate(taps):
            planes += weight * padded[:, start : start + height]
        planes = planes.swapaxes(1, 2)
    return planes
