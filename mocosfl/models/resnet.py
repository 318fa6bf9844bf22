"""ResNet-18/34/50/101/152 with GroupNorm and weight-standardised convolutions.

Source: He et al. 2016, "Deep residual learning for image recognition", table 1; stages of `width`,
2, 4 and 8 times `width` channels (64 published), strides 1, 2, 2, 2.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl.models.backbone import Backbone, Unit, stem
from mocosfl.models.layers import StandardisedConv2d, group_norm

STAGE_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
STAGE_STRIDES = (1, 2, 2, 2)


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    padding = kernel_size // 2
    return StandardisedConv2d(
        in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False
    )


class Shortcut(nn.Module):
    """1x1 convolution and norm, where a residual block changes the shape."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = _conv(in_channels, out_channels, 1, stride)
        self.norm = group_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        out: Tensor = self.norm(self.conv(x))
        return out


class ResidualBlock(nn.Module):
    """What basic and bottleneck block share: relu(path(x) + shortcut(x))."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, residual: bool) -> None:
        super().__init__()
        changes_shape = stride != 1 or in_channels != out_channels
        self.residual = residual
        self.shortcut: nn.Module = nn.Identity()
        if residual and changes_shape:
            self.shortcut = Shortcut(in_channels, out_channels, stride)

    def path(self, x: Tensor) -> Tensor:
        """Return the residual branch, before the addition."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        out = self.path(x)
        return F.relu(out + self.shortcut(x) if self.residual else out)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, *, stride: int, residual: bool) -> None:
        super().__init__(in_channels, channels, stride=stride, residual=residual)
        self.conv1 = _conv(in_channels, channels, 3, stride)
        self.norm1 = group_norm(channels)
        self.conv2 = _conv(channels, channels, 3)
        self.norm2 = group_norm(channels)

    def path(self, x: Tensor) -> Tensor:
        """Return the residual branch, before the addition."""
        x = F.relu(self.norm1(self.conv1(x)))
        out: Tensor = self.norm2(self.conv2(x))
        return out


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 (with the stride) and 1x1 convolution; four times the channels come out."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, *, stride: int, residual: bool) -> None:
        out_channels = channels * self.expansion
        super().__init__(in_channels, out_channels, stride=stride, residual=residual)
        self.conv1 = _conv(in_channels, channels, 1)
        self.norm1 = group_norm(channels)
        self.conv2 = _conv(channels, channels, 3, stride)
        self.norm2 = group_norm(channels)
        self.conv3 = _conv(channels, out_channels, 1)
        self.norm3 = group_norm(out_channels)

    def path(self, x: Tensor) -> Tensor:
        """Return the residual branch, before the addition."""
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        out: Tensor = self.norm3(self.conv3(x))
        return out


def resnet(name: str, *, width: int, image_size: int, client_blocks: int | None = None) -> Backbone:
    """Build a ResNet as units: the stem, then each residual block.

    Args:
        name: a key of `STAGE_BLOCKS`.
        width: channels of the first stage; 64 in the papers, a multiple of 4.
        image_size: pixels of the square input; chooses the stem.
        client_blocks: so many of the first blocks have no residual connection
            (`split.client_residual=false`); None: all have.
    """
    block = BasicBlock if name in ("resnet18", "resnet34") else BottleneckBlock
    units = [stem(width, image_size)]
    for stage, num_blocks in enumerate(STAGE_BLOCKS[name]):
        channels = width * 2**stage
        for index in range(num_blocks):
            stride = STAGE_STRIDES[stage] if index == 0 else 1
            number = len(units) - 1
            residual = client_blocks is None or number >= client_blocks
            module = block(units[-1].out_channels, channels, stride=stride, residual=residual)
            units.append(Unit(f"blocks.{number}", module, channels * block.expansion))
    return Backbone(units, block.expansion)
