"""Two random views of every image, made in large blocks on the training device.

A view is: random resized crop, colour jitter, grey, Gaussian blur, horizontal flip, normalisation
(MoCo v2's recipe). Drawing is apart from doing: `draw_uniforms` turns a generator into numbers on
the CPU, one row an image, and what follows is a deterministic function of images and numbers:
`parameters_from_uniforms`, then `make_views`. Rows never meet: a row's bits are the same in
whatever block it is made (CPU), so that steps may be made one by one or a hundred at once, and a
resumed run sees the views of the killed one.

How it is quick: resizing along one axis is linear, so a crop with its flip is two small matrices an
image and two batched products; so is the blur. Inside, images are three planes (3, R, H, W), so
that colour arithmetic runs over contiguous memory, and an operation touches only the images that
drew it.

Differs from pipelines on PIL images: floats between the operations, because 8 bits after each are
an accident of storage; the blur is a true Gaussian with reflected borders, because PIL's is an
approximation by boxes.

Legend: R rows (images), H and W source height and width, O output size, all in pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mocosfl.data import image_operations
from mocosfl.data.random_crops import Crops, random_crops

# ViewParameters.order and .factors number the colour operations by their place here.
_COLOUR_OPERATIONS = (
    image_operations.adjust_brightness,
    image_operations.adjust_contrast,
    image_operations.adjust_saturation,
    image_operations.adjust_hue,
)
_CROP_TRIES = 10  # torchvision's RandomResizedCrop
_COLUMNS = {  # what each uniform number of an image's row is for
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
NUM_UNIFORMS = sum(_COLUMNS.values())
_CPU_BLOCK_ELEMENTS = 2**20  # floats: 4 MB stay in the cache; measured, 2**16 is 3x slower


@dataclass(frozen=True)
class ViewSettings:
    """Distribution of a view; SPEC values in brackets."""

    crop_scale_min: float  # smallest area of a crop, fraction of the image, (0, 1] [0.08]
    crop_scale_max: float  # largest area, fraction of the image, (0, 1] [1.0]
    ratio_min: float  # smallest width / height of a crop, > 0 [3/4]
    ratio_max: float  # largest width / height, > 0 [4/3]
    brightness: float  # factor uniform in [max(0, 1 - b), 1 + b], b >= 0 [0.4]
    contrast: float  # as brightness [0.4]
    saturation: float  # as brightness [0.4]
    hue: float  # turn of the colour circle, uniform in [-h, h], h in [0, 0.5] [0.1]
    jitter_probability: float  # of all four colour operations together [0.8]
    grey_probability: float  # [0.2]
    blur_probability: float  # [0.5; 0 for v1]
    blur_sigma_min: float  # pixels of the output, > 0 [0.1]
    blur_sigma_max: float  # pixels of the output [2.0]
    flip_probability: float  # [0.5]


class ViewParameters(NamedTuple):
    """The drawn numbers of one view of R images; every tensor has the image as first dimension."""

    top: Tensor  # (R,) int64, first row of the crop, pixels
    left: Tensor  # (R,) int64
    height: Tensor  # (R,) int64, pixels, at least 1
    width: Tensor  # (R,) int64
    factors: Tensor  # (R, 4) float32: brightness, contrast, saturation, hue
    order: Tensor  # (R, 4) int64: a permutation; order[r, i] is the colour operation done i-th
    jitter: Tensor  # (R,) bool
    grey: Tensor  # (R,) bool
    blur: Tensor  # (R,) bool
    sigma: Tensor  # (R,) float32, pixels
    flip: Tensor  # (R,) bool

    def to(self, device: torch.device | str) -> "ViewParameters":
        """Return a copy on `device`."""
        return ViewParameters(*(field.to(device) for field in self))

    def select(self, rows: Tensor | slice) -> "ViewParameters":
        """Return the parameters of some rows, given as a slice, indices or a mask."""
        return ViewParameters(*(field[rows] for field in self))

    def uncropped(self, size: int) -> "ViewParameters":
        """Return the same views of images of side `size` that are cropped already, in pixels."""
        start, side = torch.zeros_like(self.top), torch.full_like(self.height, size)
        return self._replace(top=start, left=start, height=side, width=side)


def draw_uniforms(generator: torch.Generator, num_images: int) -> Tensor:
    """Draw all the randomness of one view: numbers in [0, 1), (num_images, NUM_UNIFORMS) float64.

    With many small groups (a generator a client, one image each) draw these a group, join them,
    and call `parameters_from_uniforms` once: it costs the same for one image and for a hundred.
    """
    # float64: floor(u * n) of a float32 just below 1 can round up to n.
    return torch.rand(num_images, NUM_UNIFORMS, generator=generator, dtype=torch.float64)


def crops_from_uniforms(
    settings: ViewSettings, uniforms: Tensor, *, source_size: int | Tensor
) -> Crops:
    """Return the crops alone of the views that `parameters_from_uniforms` returns."""
    draw = _by_purpose(uniforms)
    return random_crops(
        draw["area"],
        draw["ratio"],
        draw["position"],
        scales=(settings.crop_scale_min, settings.crop_scale_max),
        ratios=(settings.ratio_min, settings.ratio_max),
        source_size=source_size,
    )


def parameters_from_uniforms(
    settings: ViewSettings, uniforms: Tensor, *, source_size: int | Tensor
) -> ViewParameters:
    """Turn uniform numbers into the parameters of views.

    Args:
        settings: the distribution.
        uniforms: (R, NUM_UNIFORMS) float64 in [0, 1).
        source_size: side of the square source images, or (R, 2) int64 heights and widths; pixels.
    """
    draw = _by_purpose(uniforms)
    corners, sizes = crops_from_uniforms(settings, uniforms, source_size=source_size)
    low, high = _factor_bounds(settings)
    sigma_range = settings.blur_sigma_max - settings.blur_sigma_min
    return ViewParameters(
        top=corners[:, 0],
        left=corners[:, 1],
        height=sizes[:, 0],
        width=sizes[:, 1],
        factors=(low + (high - low) * draw["factors"]).float(),
        order=draw["order"].argsort(dim=1),
        jitter=draw["jitter"][:, 0] < settings.jitter_probability,
        grey=draw["grey"][:, 0] < settings.grey_probability,
        blur=draw["blur"][:, 0] < settings.blur_probability,
        sigma=(settings.blur_sigma_min + sigma_range * draw["sigma"][:, 0]).float(),
        flip=draw["flip"][:, 0] < settings.flip_probability,
    )


def _by_purpose(uniforms: Tensor) -> dict[str, Tensor]:
    groups = torch.split_with_sizes(uniforms, list(_COLUMNS.values()), dim=1)
    return dict(zip(_COLUMNS, groups, strict=True))


def _factor_bounds(settings: ViewSettings) -> tuple[Tensor, Tensor]:
    strengths = (settings.brightness, settings.contrast, settings.saturation)
    low = [max(0.0, 1.0 - strength) for strength in strengths] + [-settings.hue]
    high = [1.0 + strength for strength in strengths] + [settings.hue]
    return torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)


def make_views(
    images: Tensor,
    parameters: ViewParameters,
    *,
    output_size: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Make one view of each image.

    Args:
        images: (R, 3, H, W) uint8, on the device where the views are wanted; left as they are.
        parameters: of R views, on any device.
        output_size: O.
        mean: of each channel, images scaled to [0, 1].
        std: of each channel, > 0.

    Returns:
        Views (R, 3, O, O) float32, normalised, on the device of the images.

    Raises:
        ValueError: if the shapes or the dtype are others, or a crop leaves its image.
    """
    _check(images, parameters)
    views = torch.empty(len(images), 3, output_size, output_size, device=images.device)
    for rows in _blocks(images, output_size):
        own = parameters.select(rows).to(images.device)
        planes = _crop(images[rows], own, output_size)
        _jitter(planes, own)
        _apply(planes, own.grey, image_operations.to_grey)
        _apply(planes, own.blur, image_operations.gaussian_blur, own.sigma)
        _normalise(planes, views[rows], mean, std)
    return views


def _check(images: Tensor, parameters: ViewParameters) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
        shape = tuple(images.shape)
        raise ValueError(f"images: (R, 3, H, W) uint8 expected, got {shape} {images.dtype}")
    if len(parameters.top) != len(images):
        raise ValueError(f"{len(parameters.top)} rows of parameters for {len(images)} images")
    height, width = images.shape[2:]
    bottom, right = parameters.top + parameters.height, parameters.left + parameters.width
    if bool(((bottom > height) | (right > width)).any()):
        raise ValueError(f"a crop leaves its image of {height} x {width}: wrong source_size")


def _blocks(images: Tensor, output_size: int) -> Iterator[slice]:
    """Slices of rows that fit a core's cache; all rows at once on an accelerator."""
    num_rows = len(images)
    block = max(num_rows, 1)
    if images.device.type == "cpu":
        largest = max(3 * output_size**2, images[:1].numel(), 1)
        block = max(1, _CPU_BLOCK_ELEMENTS // largest)
    return (slice(start, start + block) for start in range(0, num_rows, block))


def _crop(images: Tensor, parameters: ViewParameters, output_size: int) -> Tensor:
    """Cut, resize and flip: (R, 3, H, W) uint8 -> planes (3, R, O, O) in [0, 1]."""
    height, width = images.shape[2:]
    down = image_operations.resize_matrices(
        parameters.top, parameters.height, source_size=height, output_size=output_size
    )
    across = image_operations.resize_matrices(
        parameters.left, parameters.width, source_size=width, output_size=output_size
    )
    # Every later operation commutes with the mirror, so it costs nothing here.
    across = torch.where(parameters.flip[:, None, None], across.flip(1), across)
    return image_operations.resize(images, down, across)


def _apply(
    planes: Tensor, wanted: Tensor, operation: Callable[..., Tensor], *arguments: Tensor
) -> None:
    """Apply an operation in place to the wanted rows; `arguments` have a value for each row."""
    rows = wanted.nonzero()[:, 0]
    if len(rows) > 0:
        chosen = planes.index_select(1, rows)
        result = operation(chosen, *(argument[rows] for argument in arguments))
        planes.index_copy_(1, rows, result)


def _jitter(planes: Tensor, parameters: ViewParameters) -> None:
    """Do the colour operations in place, each image in its own order."""
    for position in range(len(_COLOUR_OPERATIONS)):
        turn = parameters.order[:, position]
        for index, operation in enumerate(_COLOUR_OPERATIONS):
            wanted = parameters.jitter & (turn == index)
            _apply(planes, wanted, operation, parameters.factors[:, index])


def _normalise(planes: Tensor, views: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
    for channel, (centre, scale) in enumerate(zip(mean, std, strict=True)):
        torch.div(planes[channel].sub_(centre), scale, out=views[:, channel])
