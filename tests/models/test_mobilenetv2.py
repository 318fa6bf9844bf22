"""MobileNetV2: its channels, its parameters and its shortcuts."""

import pytest
import torch

from mocosfl.models.mobilenetv2 import scaled_channels
from tests.support.small_networks import make_split


def test_mobilenetv2_has_the_parameters_counted_by_hand() -> None:
    split = make_split("mobilenetv2", cut_layer=9, width=32)
    # A norm adds twice its channels. Stem: 27 * 32 + 64.
    total = 928
    # Blocks from i to o channels, h = i * expansion inside: i h + 2 h (expand), 9 h + 2 h
    # (depthwise), h o + 2 o (project); a shortcut i o + 2 o where stride is 1 and i is not o.
    total += 1_024 + 64 + 352 + 512 + 32 + (512 + 32)  # 32 -> 16, expansion 1
    total += 1_536 + 192 + 1_056 + 2_304 + 48 + (384 + 48)  # 16 -> 24
    total += 3_456 + 288 + 1_584 + 3_456 + 48  # 24 -> 24
    total += 3_456 + 288 + 1_584 + 4_608 + 64  # 24 -> 32, stride 2
    total += 2 * (6_144 + 384 + 2_112 + 6_144 + 64)  # 32 -> 32
    total += 6_144 + 384 + 2_112 + 12_288 + 128  # 32 -> 64, stride 2
    total += 3 * (24_576 + 768 + 4_224 + 24_576 + 128)  # 64 -> 64
    total += 24_576 + 768 + 4_224 + 36_864 + 192 + (6_144 + 192)  # 64 -> 96
    total += 2 * (55_296 + 1_152 + 6_336 + 55_296 + 192)  # 96 -> 96
    total += 55_296 + 1_152 + 6_336 + 92_160 + 320  # 96 -> 160, stride 2
    total += 2 * (153_600 + 1_920 + 10_560 + 153_600 + 320)  # 160 -> 160
    total += 153_600 + 1_920 + 10_560 + 307_200 + 640 + (51_200 + 640)  # 160 -> 320
    total += 409_600 + 2_560  # 320 -> 1280

    assert sum(parameter.numel() for parameter in split.head.parameters()) == total == 2_284_112
    assert split.feature_dim == 1280


@pytest.mark.parametrize(
    ("channels", "width", "scaled"),
    [(24, 32, 24), (320, 64, 640), (24, 8, 8), (16, 4, 4), (16, 20, 12), (96, 12, 36)],
)
def test_mobilenetv2_channels_scale_to_multiples_of_four(
    channels: int, width: int, scaled: int
) -> None:
    assert scaled_channels(channels, width) == scaled


def test_mobilenetv2_adds_the_shortcut_without_a_relu_behind_it() -> None:
    stages = make_split("mobilenetv2", cut_layer=4).head.units.stages
    x = torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    widening, same = stages.get_submodule("1.0"), stages.get_submodule("1.1")
    strided = stages.get_submodule("2.0")

    torch.testing.assert_close(same(x), same.path(x) + x, rtol=0, atol=0)
    assert same(x).min().item() < 0
    x4 = x[:, :4]
    torch.testing.assert_close(widening(x4), widening.path(x4) + widening.shortcut(x4))
    torch.testing.assert_close(strided(x), strided.path(x), rtol=0, atol=0)
    assert strided(x).shape == (1, 8, 3, 3)
