"""The normalisation of images as a layer, so that it travels with an encoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalisation(nn.Module):
    """(images - mean) / std, channel by channel; `extract_features` does the same to its images."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Keep both as buffers, so that they follow the network to its device.

        Args:
            mean: of each channel, images scaled to [0, 1].
            std: of each channel, > 0.
        """
        super().__init__()
        # Not among the weights: a file that holds those has the exact numbers as its metadata.
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) in [0, 1] to normalised images of the same shape."""
        return (images - self.mean) / self.std
