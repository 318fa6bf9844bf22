"""A backbone as a list of units, so that it can be cut behind any of them.

A unit is what the papers count as a layer when they place the cut: the stem, a residual block, a
VGG entry (its max-pools too). Names are dotted paths ("stem", "blocks.3", "convs.0") and stay with
a unit on whichever side of the cut it lands.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from mocosfl.models.layers import ConvNormReLU


class Unit(NamedTuple):
    """One unit of a backbone and the channels it puts out."""

    name: str
    module: nn.Module
    out_channels: int


class Backbone(NamedTuple):
    """Units in forward order; the features are the global average of the last unit's output."""

    units: list[Unit]
    expansion: int  # block expansion: 4 for ResNet-50 and deeper, else 1; scales the projector

    @property
    def feature_dim(self) -> int:
        """Size of the pooled features."""
        return self.units[-1].out_channels


class UnitSequence(nn.Module):
    """Runs units one after the other, keeping their dotted names as module paths."""

    def __init__(self, units: Sequence[Unit]) -> None:
        super().__init__()
        self.order = [unit.name for unit in units]
        for unit in units:
            *folders, leaf = unit.name.split(".")
            parent: nn.Module = self
            for folder in folders:
                if not hasattr(parent, folder):
                    parent.add_module(folder, nn.Module())
                parent = parent.get_submodule(folder)
            parent.add_module(leaf, unit.module)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the last unit's (B, C', H', W')."""
        for name in self.order:
            x = self.get_submodule(name)(x)
        return x


def stem(width: int, image_size: int) -> Unit:
    """Return the first unit, chosen by the image size in pixels.

    Below 48 (the 32 px data sets): 3x3, stride 1. Below 128 (64 px): 3x3, stride 2.
    From there on (224 px): 7x7, stride 2. No max-pool in any.
    """
    kernel_size, stride = (3, 1) if image_size < 48 else (3, 2) if image_size < 128 else (7, 2)
    module = ConvNormReLU(3, width, kernel_size=kernel_size, stride=stride)
    return Unit("stem", module, width)
