"""Shapes, sizes and normalisation of the decoders."""

import pytest
import torch
from torch import nn

from mocosfl.privacy.decoders import MIN_BATCH_NORM_ROWS, build_decoder, parse_decoder

# (c, h, w) of smashed data, image size, doublings
SIZES = [
    ((16, 32, 32), 32, 0),
    ((4, 16, 16), 32, 1),
    ((8, 8, 8), 32, 2),
    ((16, 4, 4), 32, 3),
    ((2, 2, 2), 32, 4),
    ((4, 7, 7), 28, 2),
    ((4, 7, 7), 32, 3),
    ((3, 28, 28), 224, 3),
]


def layers(decoder: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(layer, kind) for layer in decoder.modules())


@pytest.mark.parametrize("name", ["res_normN4C64", "conv_normN2C8", "res_normN0C6", "plain"])
@pytest.mark.parametrize(("shape", "size"), [(shape, size) for shape, size, _ in SIZES[:-1]])
def test_output_is_an_image_for_every_size_of_smashed_data(
    name: str, shape: tuple[int, int, int], size: int
):
    decoder = build_decoder(name, shape, image_size=size, batch_size=2)
    images = decoder(10 * torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))
    assert images.shape == (2, 3, size, size)
    assert images.min() >= 0
    assert images.max() <= 1


@pytest.mark.parametrize(("shape", "size", "doublings"), SIZES)
def test_each_doubling_is_a_transposed_convolution(
    shape: tuple[int, int, int], size: int, doublings: int
):
    decoder = build_decoder("res_normN1C8", shape, image_size=size, batch_size=2)
    assert layers(decoder, nn.ConvTranspose2d) == doublings


@pytest.mark.parametrize(("shape", "size", "doublings"), SIZES[:4])
def test_blocks_stand_where_fewer_than_two_doublings_are_needed(
    shape: tuple[int, int, int], size: int, doublings: int
):
    def blocks(num: int) -> int:
        decoder = build_decoder(f"res_normN{num}C8", shape, image_size=size, batch_size=2)
        return sum(layer.kernel_size == (3, 3) for layer in decoder.modules()
                   if isinstance(layer, nn.Conv2d)) // 2  # fmt: skip

    # The first, the named ones, those in the places of doublings, and the last to 3 channels.
    assert blocks(0) == 1 + max(0, 2 - doublings) + 1
    assert blocks(4) == blocks(0) + 4


def test_normalisation_is_over_the_batch_from_twenty_rows_on():
    def kinds(rows: int) -> tuple[bool, bool]:
        decoder = build_decoder("res_normN1C8", (4, 8, 8), image_size=32, batch_size=rows)
        return layers(decoder, nn.BatchNorm2d) > 0, layers(decoder, nn.GroupNorm) > 0

    assert MIN_BATCH_NORM_ROWS == 20
    assert kinds(19) == (False, True)
    assert kinds(20) == (True, False)


def test_plain_decoder_normalises_nothing():
    decoder = build_decoder("plain", (4, 8, 8), image_size=32, batch_size=64)
    assert layers(decoder, nn.BatchNorm2d) + layers(decoder, nn.GroupNorm) == 0


def test_name_says_family_blocks_and_channels():
    assert parse_decoder("res_normN4C64") == ("res_norm", 4, 64)
    assert parse_decoder("conv_normN0C12") == ("conv_norm", 0, 12)


@pytest.mark.parametrize("name", ["res_norm", "res_normN4C0", "resnormN4C64", "res_normN4C64x", ""])
def test_unknown_name_is_refused_with_the_known_ones(name: str):
    with pytest.raises(ValueError, match="unknown decoder; choose res_normN<blocks>C<channels>"):
        parse_decoder(name)


def test_smashed_data_larger_than_the_image_are_refused():
    with pytest.raises(ValueError, match="64 x 64 are larger than the image"):
        build_decoder("plain", (3, 64, 64), image_size=32, batch_size=2)
