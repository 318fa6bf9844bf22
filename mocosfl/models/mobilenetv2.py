"""MobileNetV2 in its form for small images, with GroupNorm and weight-standardised convolutions.

Units: the stem, each of the seven stages of inverted residual blocks, and the 1x1 convolution
to the features. `width` is the stem's channels (32 published); every other number of channels
is scaled by width / 32.

Source: Sandler et al. 2018, "MobileNetV2: inverted residuals and linear bottlenecks", table 2.
Differs from the paper: the first stages keep the resolution, since 32 px images have none to spare;
blocks of stride 1 that change the channels have a shortcut of a 1x1 convolution; ReLU in place
of ReLU6; the first stage expands too, by 1. That is the usual form for CIFAR.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl.models.backbone import Backbone, Unit, stem
from mocosfl.models.layers import CHANNELS_PER_GROUP, ConvNormReLU, StandardisedConv2d, group_norm
from mocosfl.models.resnet import Shortcut

NAME = "mobilenetv2"
STEM_CHANNELS = 32
FEATURE_CHANNELS = 1280


class Stage(NamedTuple):
    """A row of the paper's table 2; the stride is the first block's."""

    expansion: int
    channels: int
    num_blocks: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 1),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise convolution (with the stride), 1x1 projection; no last ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, *, expansion: int, stride: int, residual: bool
    ) -> None:
        super().__init__()
        hidden = expansion * in_channels
        self.expand = ConvNormReLU(in_channels, hidden, kernel_size=1)
        self.depthwise = StandardisedConv2d(
            hidden, hidden, 3, stride=stride, padding=1, groups=hidden, bias=False
        )
        self.norm = group_norm(hidden)
        self.project = Shortcut(hidden, out_channels, 1)  # the same two layers: 1x1 and norm
        self.residual = residual and stride == 1
        self.shortcut: nn.Module = nn.Identity()
        if self.residual and in_channels != out_channels:
            self.shortcut = Shortcut(in_channels, out_channels, 1)

    def path(self, x: Tensor) -> Tensor:
        """Return the residual branch, before the addition."""
        x = F.relu(self.norm(self.depthwise(self.expand(x))))
        out: Tensor = self.project(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        out = self.path(x)
        return out + self.shortcut(x) if self.residual else out


def scaled_channels(channels: int, width: int) -> int:
    """Scale a published number of channels by width / 32, to a multiple of 4, at least 4."""
    groups = channels * width / STEM_CHANNELS / CHANNELS_PER_GROUP
    return CHANNELS_PER_GROUP * max(1, int(groups + 0.5))


def mobilenetv2(*, width: int, image_size: int, client_stages: int | None = None) -> Backbone:
    """Build a MobileNetV2 as units: the stem, each stage, and the last convolution.

    Args:
        width: channels of the stem; 32 published, a multiple of 4.
        image_size: pixels of the square input; chooses the stem.
        client_stages: so many of the first stages have no residual connections
            (`split.client_residual=false`); None: all have.
    """
    units = [stem(width, image_size)]
    for number, stage in enumerate(STAGES):
        residual = client_stages is None or number >= client_stages
        channels = scaled_channels(stage.channels, width)
        blocks = _blocks(stage, units[-1].out_channels, channels, residual=residual)
        units.append(Unit(f"stages.{number}", blocks, channels))
    features = scaled_channels(FEATURE_CHANNELS, width)
    last = ConvNormReLU(units[-1].out_channels, features, kernel_size=1)
    units.append(Unit("last", last, features))
    return Backbone(units, expansion=1)


def _blocks(stage: Stage, in_channels: int, channels: int, *, residual: bool) -> nn.Sequential:
    sizes = [in_channels, *[channels] * stage.num_blocks]
    return nn.Sequential(
        *(
            InvertedResidual(
                sizes[index],
                channels,
                expansion=stage.expansion,
                stride=stage.stride if index == 0 else 1,
                residual=residual,
            )
            for index in range(stage.num_blocks)
        )
    )
