"""Layers that every backbone is made of: weight-standardised convolutions and GroupNorm.

Nothing here depends on the batch, so a client may train with a single image a step.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS_PER_GROUP = 4  # of GroupNorm, in all published MocoSFL models
STANDARDISATION_EPS = 1e-5


def standardise(weight: Tensor) -> Tensor:
    """Give each output channel's filter zero mean and unit (unbiased) standard deviation.

    Args:
        weight: (..., in, kh, kw); the last three dimensions are one filter.

    Returns:
        Tensor of the same shape.

    Source: Qiao et al. 2019, "Weight standardization", eq. 6-7, with eps added to the deviation.
    """
    filters = (-3, -2, -1)
    centred = weight - weight.mean(filters, keepdim=True)
    # Not torch.std_mean, which is several times slower on a CPU.
    norm: Tensor = torch.linalg.vector_norm(centred, dim=filters, keepdim=True)
    std = norm / math.sqrt(weight.shape[-3:].numel() - 1)
    return centred / (std + STANDARDISATION_EPS)


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose weight is standardised at each forward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (B, in, H, W) to (B, out, H', W')."""
        out: Tensor = self._conv_forward(input, standardise(self.weight), self.bias)
        return out


def group_norm(channels: int) -> nn.GroupNorm:
    """Return the GroupNorm of `channels` channels: 4 channels a group, at least one group."""
    return nn.GroupNorm(max(1, channels // CHANNELS_PER_GROUP), channels)


def initialise(module: nn.Module) -> None:
    """Start linear and plain convolution layers xavier-uniform with zero bias, in place.

    Weight-standardised convolutions keep PyTorch's default, as in the published models.
    """
    for layer in module.modules():
        if isinstance(layer, StandardisedConv2d):
            continue
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ConvNormReLU(nn.Module):
    """Weight-standardised convolution, GroupNorm, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = StandardisedConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            bias=bias,
        )
        self.norm = group_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        return F.relu(self.norm(self.conv(x)))
