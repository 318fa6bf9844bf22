"""From image numbers and uniform random numbers to views on the training device."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl.data.augmentation import ViewSettings, make_views, parameters_from_uniforms


class ViewMaker:
    """Makes the views of images, a block of steps at a time, on the training device."""

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
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

    def read(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Return images (R, 3, H, W) uint8 on the device."""
        order = np.argsort(indices)  # a memory-mapped file is read from front to back
        pixels = np.empty((len(indices), *self.images.shape[1:]), np.uint8)
        pixels[order] = self.images[indices[order]]
        return torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)

    def views(self, indices: npt.NDArray[np.int64], uniforms: Tensor) -> list[Tensor]:
        """Return views (R, 3, H, W) of images (R,), one a row of uniforms (views, R, ...)."""
        images = self.read(indices)
        return [
            make_views(
                images,
                parameters_from_uniforms(self.settings, numbers, source_size=self.image_size),
                output_size=self.image_size,
                mean=self.mean,
                std=self.std,
            )
            for numbers in uniforms
        ]

    def prefetch(self, indices: npt.NDArray[np.int64], uniforms: Tensor) -> None:
        """Take note of what will be asked for next; arrays need no time to be read."""
