"""Cutting a backbone into the clients' head and the server's trunk.

The first `cut_layer` units are the head. A bottleneck pair at the cut may squeeze what is sent:
"C4S2" = 4 channels, stride 2 (MocoSFL paper, section 5.2).
"""

import sys
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl.models.backbone import Backbone, UnitSequence
from mocosfl.models.layers import initialise
from mocosfl.models.mobilenetv2 import NAME as MOBILENETV2
from mocosfl.models.mobilenetv2 import mobilenetv2
from mocosfl.models.resnet import STAGE_BLOCKS, resnet
from mocosfl.models.vgg import STAGE_CONVS, vgg

BACKBONES = (*STAGE_BLOCKS, *STAGE_CONVS, MOBILENETV2)


class Bottleneck(NamedTuple):
    """The pair of small convolutions at the cut.

    Attributes:
        channels: of the smashed data.
        stride: 1, 2 or 4, the factor by which height and width shrink; 4 is two layers of 2.
        kernel_size: odd.
        relu: whether each layer ends in a ReLU.
    """

    channels: int
    stride: int
    kernel_size: int = 3
    relu: bool = True


def bottleneck_of(
    channels: int | None, stride: int, *, kernel_size: int, relu: bool
) -> Bottleneck | None:
    """Return the pair of the settings `bottleneck_*`; None where there are no channels."""
    return Bottleneck(channels, stride, kernel_size, relu) if channels is not None else None


class _Squeeze(nn.Module):
    """One side of a bottleneck pair: convolutions, each with an optional ReLU."""

    def __init__(self, convs: list[nn.Module], relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu(conv(x)) if self.relu else conv(x)
        return x


def _down(pair: Bottleneck, in_channels: int) -> _Squeeze:
    strides = [2, 2] if pair.stride == 4 else [pair.stride]
    sizes = [in_channels, *[pair.channels] * len(strides)]
    kernel, padding = pair.kernel_size, pair.kernel_size // 2
    convs: list[nn.Module] = [
        nn.Conv2d(sizes[i], sizes[i + 1], kernel, stride=stride, padding=padding)
        for i, stride in enumerate(strides)
    ]
    return _Squeeze(convs, pair.relu)


def _up(pair: Bottleneck, out_channels: int) -> _Squeeze:
    strides = [2, 2] if pair.stride == 4 else [pair.stride]
    sizes = [*[pair.channels] * len(strides), out_channels]
    kernel, padding = pair.kernel_size, pair.kernel_size // 2
    convs: list[nn.Module] = []
    for i, stride in enumerate(strides):
        if stride == 1:
            convs.append(nn.Conv2d(sizes[i], sizes[i + 1], kernel, padding=padding))
        else:
            convs.append(
                nn.ConvTranspose2d(
                    sizes[i], sizes[i + 1], kernel, stride=2, padding=padding, output_padding=1
                )
            )
    return _Squeeze(convs, pair.relu)


class Head(nn.Module):
    """What runs on a client: the first units and, where there is one, the squeezing convolution."""

    def __init__(self, units: UnitSequence, down: nn.Module | None) -> None:
        super().__init__()
        self.units = units
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to smashed data (B, c, h, w)."""
        smashed: Tensor = self.units(x)
        return smashed if self.down is None else self.down(smashed)


class Trunk(nn.Module):
    """What runs on the server: the widening convolution, the other units, the average pool."""

    def __init__(self, units: UnitSequence, up: nn.Module | None) -> None:
        super().__init__()
        self.up = up
        self.units = units

    def forward(self, smashed: Tensor) -> Tensor:
        """Map smashed data (B, c, h, w) to features (B, D)."""
        x = smashed if self.up is None else self.up(smashed)
        return torch.flatten(F.adaptive_avg_pool2d(self.units(x), 1), 1)


class Split(NamedTuple):
    """Both sides of the cut."""

    head: Head
    trunk: Trunk
    feature_dim: int
    expansion: int
    smashed_shape: tuple[int, int, int]  # (c, h, w) of one image


def build_backbone(
    name: str, *, width: int, image_size: int, client_blocks: int | None = None
) -> Backbone:
    """Build a backbone by name; see `resnet`, `vgg` and `mobilenetv2` for the arguments.

    Raises:
        ValueError: unknown name, or `width` not a positive multiple of 4.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone.name={name}: unknown; choose one of {', '.join(BACKBONES)}")
    if width < 4 or width % 4:
        raise ValueError(f"backbone.width={width}: must be a positive multiple of 4 (GroupNorm)")
    if name in STAGE_CONVS:
        return vgg(name, width=width)
    if name == MOBILENETV2:
        return mobilenetv2(width=width, image_size=image_size, client_stages=client_blocks)
    return resnet(name, width=width, image_size=image_size, client_blocks=client_blocks)


def split_backbone(
    name: str,
    *,
    width: int,
    image_size: int,
    cut_layer: int | None,
    bottleneck: Bottleneck | None = None,
    client_residual: bool = True,
) -> Split:
    """Build a backbone and cut it.

    Args:
        name: one of `BACKBONES`.
        width: channels of the first unit, a multiple of 4; 64 published, 32 of MobileNetV2.
        image_size: pixels of the square input.
        cut_layer: units on the client, from 1 to all of them; None for all of them.
        bottleneck: the pair at the cut; None for none.
        client_residual: False takes the residual connections out of the client's blocks.

    Raises:
        ValueError: unknown name, bad width, a cut beyond the network, an image too small.
    """
    client_blocks = None if client_residual else (cut_layer or sys.maxsize) - 1
    backbone = build_backbone(name, width=width, image_size=image_size, client_blocks=client_blocks)
    units = backbone.units
    cut_layer = len(units) if cut_layer is None else cut_layer
    if not 1 <= cut_layer <= len(units):
        raise ValueError(
            f"split.cut_layer={cut_layer}: {name} has {len(units)} units; "
            f"choose a cut from 1 to {len(units)}"
        )
    channels = units[cut_layer - 1].out_channels
    down = _down(bottleneck, channels) if bottleneck else None
    up = _up(bottleneck, channels) if bottleneck else None
    head = Head(UnitSequence(units[:cut_layer]), down)
    trunk = Trunk(UnitSequence(units[cut_layer:]), up)
    for side in (head, trunk):
        initialise(side)
    shape = _smashed_shape(head, trunk, image_size)
    return Split(head, trunk, backbone.feature_dim, backbone.expansion, shape)


def _smashed_shape(head: Head, trunk: Trunk, image_size: int) -> tuple[int, int, int]:
    parameter = next(head.parameters())
    image = torch.zeros(
        1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype
    )
    try:
        with torch.no_grad():
            smashed = head(image)
            trunk(smashed)
    except RuntimeError as error:
        raise ValueError(
            f"dataset.image_size={image_size}: too small for this backbone, whose strides and "
            f"pools leave no pixel; use larger images or a backbone with fewer pools ({error})"
        ) from error
    _, channels, height, width = smashed.shape
    return channels, height, width
