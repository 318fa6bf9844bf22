"""From image numbers and uniform random numbers to views on the training device.

`ViewMaker` reads arrays; `picture_array.PictureViewMaker` offers the same for pictures on disk.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl.config.schema import Config
from mocosfl.data.augmentation import (
    ViewParameters,
    ViewSettings,
    make_views,
    parameters_from_uniforms,
)
from mocosfl.data.cache import Images


class ViewMaker:
    """Makes the views of images, a block of steps at a time, on the training device."""

    def __init__(
        self,
        images: Images,
        settings: ViewSettings,
        *,
        mean: list[float],
        std: list[float],
        device: torch.device,
    ) -> None:
        """Keep what a view needs.

        Args:
            images: (N, H, W, 3), square, may be memory-mapped.
            settings: of the random views.
            mean: per channel, of images scaled to [0, 1].
            std: per channel.
            device: where the views are made.
        """
        self.images, self.settings, self.mean, self.std = images, settings, mean, std
        self.device = device
        self.image_size = images.shape[1]

    def prefetch(self, indices: npt.NDArray[np.int64], uniforms: Tensor) -> None:
        """Take note that `views` will soon be called with these arguments; nothing for arrays."""

    def read(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Return images (R, 3, H, W) uint8 on the device."""
        order = np.argsort(indices)  # a memory-mapped file is read from front to back
        pixels = np.empty((len(indices), *self.images.shape[1:]), np.uint8)
        pixels[order] = self.images[indices[order]]
        return self.on_device(pixels)

    def views(self, indices: npt.NDArray[np.int64], uniforms: Tensor) -> list[Tensor]:
        """Return views (R, 3, H, W) of images (R,), one a row of uniforms (views, R, ...)."""
        images = self.read(indices)
        return [self.make(images, self.parameters(numbers)) for numbers in uniforms]

    def parameters(self, uniforms: Tensor) -> ViewParameters:
        """Return the parameters of a view from (R, NUM_UNIFORMS) numbers."""
        return parameters_from_uniforms(self.settings, uniforms, source_size=self.image_size)

    def make(self, images: Tensor, parameters: ViewParameters) -> Tensor:
        """Return a view (R, 3, H, W) of images (R, 3, H, W) uint8 on the device."""
        return make_views(
            images, parameters, output_size=self.image_size, mean=self.mean, std=self.std
        )

    def on_device(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """Bring images (R, H, W, 3) to the device as (R, 3, H, W)."""
        return torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)


def view_settings(config: Config) -> ViewSettings:
    """Return the distribution of the random views."""
    a = config.moco.augmentation
    return ViewSettings(
        crop_scale_min=a.crop_scale_min,
        crop_scale_max=a.crop_scale_max,
        ratio_min=a.crop_ratio_min,
        ratio_max=a.crop_ratio_max,
        brightness=a.brightness,
        contrast=a.contrast,
        saturation=a.saturation,
        hue=a.hue,
        jitter_probability=a.jitter_probability,
        grey_probability=a.grey_probability,
        blur_probability=a.blur_probability,
        blur_sigma_min=a.blur_sigma_min,
        blur_sigma_max=a.blur_sigma_max,
        flip_probability=a.flip_probability,
    )
