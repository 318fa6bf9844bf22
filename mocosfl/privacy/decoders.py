"""Decoders from smashed data back to images: what an attacker trains.

    res_normN4C64    pre-activation residual blocks: one to 64 channels, 4 more
    conv_normN4C64   the same with plain convolutions
    plain            a small one, without normalisation

Behind these stand the doublings from the smashed size to the image size, one transposed convolution
each; where fewer than two are needed, blocks without a stride take the places. The last block goes
to three channels, and a sigmoid to [0, 1]. Normalisation is over the batch where that is large
enough, else over groups of channels.

Source: Li et al., MocoSFL, ICLR 2023, appendix on TAResSFL; names and sizes as published.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl.models.layers import CHANNELS_PER_GROUP, initialise

MIN_BATCH_NORM_ROWS = 20  # published: BatchNorm from this batch on
NUM_SCALING_PLACES = 2  # published: so many blocks behind the body, doublings or not
PLAIN_CHANNELS = 64
_NAME = re.compile(r"(res_norm|conv_norm)N(\d+)C(\d+)")
_IMAGE_CHANNELS = 3
_Norm = Callable[[int], nn.Module]  # a normalisation as a function of its channels


class DecoderKind(NamedTuple):
    """What a decoder's name says."""

    family: str  # res_norm, conv_norm or plain
    num_blocks: int  # behind the first
    channels: int


def parse_decoder(name: str) -> DecoderKind:
    """Read a decoder's name.

    Raises:
        ValueError: it is none, or has no channels.
    """
    if name == "plain":
        return DecoderKind("plain", 0, PLAIN_CHANNELS)
    match = _NAME.fullmatch(name)
    if match is None or int(match[3]) < 1:
        raise ValueError(
            f"{name}: unknown decoder; choose res_normN<blocks>C<channels>, "
            "conv_normN<blocks>C<channels> (as in res_normN4C64) or plain"
        )
    return DecoderKind(match[1], int(match[2]), int(match[3]))


def build_decoder(
    name: str, smashed_shape: tuple[int, int, int], *, image_size: int, batch_size: int
) -> nn.Module:
    """Build a decoder, smashed data (B, c, h, w) -> images (B, 3, H, H) in [0, 1].

    Args:
        name: see the module.
        smashed_shape: (c, h, w) of one image, h and w at most `image_size`.
        image_size: H, pixels.
        batch_size: rows it is trained on at a time; decides the normalisation.

    Raises:
        ValueError: the name is unknown, or the smashed data are larger than the image.
    """
    kind = parse_decoder(name)
    channels, height, width = smashed_shape
    if max(height, width) > image_size:
        raise ValueError(
            f"dataset.image_size={image_size}: smashed data of {height} x {width} are larger than "
            "the image"
        )
    if kind.family == "plain":
        norm: _Norm = _no_norm
    else:
        norm = nn.BatchNorm2d if batch_size >= MIN_BATCH_NORM_ROWS else _grouped
    block = _ResidualBlock if kind.family == "res_norm" else _ConvBlock
    size = kind.channels
    num_doublings = _num_doublings(min(height, width), image_size)
    parts: list[nn.Module] = [block(channels, size, norm)]
    parts += [block(size, size, norm) for _ in range(kind.num_blocks)]
    parts += [_Doubling(size, norm) for _ in range(num_doublings)]
    parts += [block(size, size, norm) for _ in range(NUM_SCALING_PLACES - num_doublings)]
    last = (
        _ResidualBlock(size, _IMAGE_CHANNELS, norm)
        if kind.family == "res_norm"
        else nn.Conv2d(size, _IMAGE_CHANNELS, 3, padding=1)
    )
    decoder = Decoder(nn.Sequential(*parts, last), image_size)
    initialise(decoder)
    return decoder


def _num_doublings(size: int, image_size: int) -> int:
    """Return how often a size is doubled until it covers the image."""
    return max(0, (-(-image_size // size) - 1).bit_length())


def _no_norm(channels: int) -> nn.Module:
    return nn.Identity()


def _grouped(channels: int) -> nn.Module:
    """Return GroupNorm with about 4 channels a group; smashed data may have any number."""
    wanted = max(1, channels // CHANNELS_PER_GROUP)
    groups = next(number for number in range(wanted, 0, -1) if channels % number == 0)
    return nn.GroupNorm(groups, channels)


class Decoder(nn.Module):
    """A decoder; what reaches beyond the image (sizes that are no power of 2) is cut off."""

    def __init__(self, layers: nn.Module, image_size: int) -> None:
        super().__init__()
        self.layers, self.image_size = layers, image_size

    def forward(self, smashed: Tensor) -> Tensor:
        """Map (B, c, h, w) to (B, 3, H, H) in [0, 1]."""
        images: Tensor = self.layers(smashed)
        return torch.sigmoid(images[..., : self.image_size, : self.image_size])


class _ResidualBlock(nn.Module):
    """Two pre-activation convolutions beside a shortcut, (B, in, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, norm: _Norm) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(in_channels), norm(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.norm1(x)))
        out = self.conv2(F.relu(self.norm2(out)))
        block: Tensor = out + self.shortcut(x)
        return block


class _ConvBlock(nn.Module):
    """Convolution, normalisation, ReLU, (B, in, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, norm: _Norm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class _Doubling(nn.Module):
    """Transposed convolution and normalisation, (B, C, H, W) -> (B, C, 2H, 2W)."""

    def __init__(self, channels: int, norm: _Norm) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1)
        self.norm = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out
