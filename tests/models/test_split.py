"""Backbones, cuts and bottleneck pairs against closed forms and the uncut network."""

from collections.abc import Iterable, Iterator

import pytest
import torch
from torch import Tensor, nn

from mocosfl.models.projector import Projector
from mocosfl.models.split import BACKBONES, Bottleneck, Split, build_backbone
from mocosfl.models.vgg import STAGE_CONVS
from tests.support.small_networks import WIDTH, images, make_split

NUM_UNITS = {
    "resnet18": 9,
    "resnet34": 17,
    "resnet50": 17,
    "resnet101": 34,
    "resnet152": 51,
    "vgg11": 13,
    "vgg13": 15,
    "vgg16": 18,
    "vgg19": 21,
    "mobilenetv2": 9,
}
DEEP = ("resnet101", "resnet152")
# Every cut; of the two deep ones a few (their parts are those of resnet50).
CUTS = {
    name: (1, 4, num // 2, num) if name in DEEP else range(1, num + 1)
    for name, num in NUM_UNITS.items()
}


def state_of(split: Split) -> dict[str, Tensor]:
    """Return the state of both sides, which share no name."""
    return {**split.head.state_dict(), **split.trunk.state_dict()}


def named_gradients(split: Split) -> Iterator[tuple[str, Tensor | None]]:
    """Yield each parameter's name and gradient."""
    for side in (split.head, split.trunk):
        for name, parameter in side.named_parameters():
            yield name, parameter.grad


def smashed(split: Split, size: int = 32) -> Tensor:
    """Run one image through the head."""
    with torch.no_grad():
        return split.head(images(1, size, torch.float32))


def test_num_units_covers_every_backbone() -> None:
    assert set(NUM_UNITS) == set(BACKBONES)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_has_the_documented_units(name: str) -> None:
    backbone = build_backbone(name, width=WIDTH, image_size=32)

    assert len(backbone.units) == NUM_UNITS[name]
    is_wide = name in ("resnet50", "resnet101", "resnet152")
    assert backbone.expansion == (4 if is_wide else 1)
    last = 40 if name == "mobilenetv2" else 8 * backbone.expansion  # 1280 / 32
    assert backbone.feature_dim == WIDTH * last


@pytest.mark.parametrize("name", BACKBONES)
def test_gradient_through_any_cut_equals_the_uncut_gradient(name: str) -> None:
    size = 32 if name in STAGE_CONVS else 8  # the smallest that no pool or stride exhausts
    check_cuts(name, CUTS[name], size=size)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2"])
@pytest.mark.parametrize("size", [64, 128])  # the stems of 64 px and, from 128 px on, 224 px
def test_gradient_through_the_cut_equals_the_uncut_gradient_with_larger_stems(
    name: str, size: int
) -> None:
    check_cuts(name, (1, 4), size=size)


def check_cuts(name: str, cuts: Iterable[int], *, size: int) -> None:
    """Compare features and gradients of each cut with those of the uncut network."""
    uncut = make_split(name, cut_layer=NUM_UNITS[name], image_size=size)
    uncut.head.double()
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(2, uncut.feature_dim, generator=generator, dtype=torch.float64)
    features = uncut.trunk(uncut.head(images(size=size)))
    (features * direction).sum().backward()
    expected = dict(named_gradients(uncut))

    for cut_layer in cuts:
        split = make_split(name, cut_layer=cut_layer, image_size=size, seed=1)
        split.head.double().load_state_dict(
            {n: t for n, t in state_of(uncut).items() if n in split.head.state_dict()}
        )
        split.trunk.double().load_state_dict(
            {n: t for n, t in state_of(uncut).items() if n in split.trunk.state_dict()}
        )
        sent = split.head(images(size=size))
        received = sent.detach().requires_grad_()
        cut_features = split.trunk(received)
        (cut_features * direction).sum().backward()
        sent.backward(received.grad)

        torch.testing.assert_close(cut_features, features, rtol=1e-10, atol=1e-12)
        gradients = dict(named_gradients(split))
        assert gradients.keys() == expected.keys()
        torch.testing.assert_close(gradients, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11", "mobilenetv2"])
def test_no_image_depends_on_the_others_of_its_batch(name: str) -> None:
    split = make_split(name, cut_layer=2)
    split.head.double()
    split.trunk.double()
    together = split.trunk(split.head(images(3)))
    alone = torch.cat([split.trunk(split.head(image[None])) for image in images(3)])

    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2"])
@pytest.mark.parametrize(("size", "kernel", "side"), [(32, 3, 32), (64, 3, 32), (224, 7, 112)])
def test_stem_follows_the_image_size(name: str, size: int, kernel: int, side: int) -> None:
    split = make_split(name, image_size=size)

    conv = split.head.get_submodule("units.stem.conv")
    assert conv.kernel_size == (kernel, kernel)
    assert conv.stride == (size // side, size // side)
    assert split.smashed_shape == (WIDTH, side, side)
    assert smashed(split, size).shape == (1, WIDTH, side, side)


@pytest.mark.parametrize(
    ("name", "cut_layer", "shape"),
    [
        ("resnet18", 3, (8, 32, 32)),
        ("resnet18", 4, (16, 16, 16)),
        ("resnet18", 9, (64, 4, 4)),
        ("resnet50", 2, (32, 32, 32)),
        ("vgg11", 1, (8, 32, 32)),
        ("vgg11", 2, (8, 16, 16)),
        ("vgg11", 13, (64, 1, 1)),
        ("mobilenetv2", 2, (4, 32, 32)),
        ("mobilenetv2", 3, (8, 32, 32)),  # 24 channels of 32 are 6 of 8: no multiple of 4
        ("mobilenetv2", 4, (8, 16, 16)),
        ("mobilenetv2", 8, (80, 4, 4)),
        ("mobilenetv2", 9, (320, 4, 4)),
    ],
)
def test_smashed_shape_is_that_of_the_cut(
    name: str, cut_layer: int, shape: tuple[int, int, int]
) -> None:
    split = make_split(name, cut_layer=cut_layer)

    assert split.smashed_shape == shape
    assert smashed(split).shape == (1, *shape)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize(("stride", "side"), [(1, 32), (2, 16), (4, 8)])
def test_bottleneck_squeezes_the_smashed_data_and_restores_it(
    stride: int, side: int, kernel_size: int, relu: bool
) -> None:
    pair = Bottleneck(4, stride, kernel_size=kernel_size, relu=relu)
    split = make_split(cut_layer=2, bottleneck=pair)
    sent = smashed(split)
    restored = split.trunk.up(sent)

    assert split.smashed_shape == (4, side, side)
    assert sent.shape == (1, 4, side, side)
    assert restored.shape == (1, WIDTH, 32, 32)
    assert (sent.min().item() >= 0) is relu
    assert (restored.min().item() >= 0) is relu
    assert len(split.head.down.convs) == len(split.trunk.up.convs) == (2 if stride == 4 else 1)


def test_plain_layers_start_xavier_uniform_with_zero_bias() -> None:
    split = make_split("vgg11", cut_layer=2, bottleneck=Bottleneck(4, 2))
    projector = Projector(64, hidden_dim=32, embedding_dim=16)
    plain = [split.head.down.convs[0], split.trunk.up.convs[0], *projector.linears]

    for layer in plain:
        area = layer.weight[0, 0].numel()
        bound = (6 / (area * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
        assert 0.9 * bound < layer.weight.abs().max().item() <= bound
        assert torch.count_nonzero(layer.bias) == 0


def test_standardised_convolutions_keep_the_default_start() -> None:
    conv = make_split("vgg11", cut_layer=1).trunk.get_submodule("units.convs.7.conv")
    bound = 1 / conv.weight[0].numel() ** 0.5  # kaiming-uniform with a = sqrt(5)

    assert 0.99 * bound < conv.weight.abs().max().item() <= bound
    assert torch.count_nonzero(conv.bias) > 0


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_client_residual_false_removes_the_connections_on_the_client_only(name: str) -> None:
    split = make_split(name, cut_layer=4, client_residual=False)

    assert not any("shortcut" in n for n in split.head.state_dict())
    blocks = nn.ModuleList(split.head.units.blocks.children())
    assert [block.residual for block in blocks] == [False] * 3
    blocks = nn.ModuleList(split.trunk.units.blocks.children())
    assert all(block.residual for block in blocks)
    first = split.head.units.blocks.get_submodule("0")
    x = torch.randn(1, WIDTH, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(first(x), first.path(x).relu(), rtol=0, atol=0)


def test_client_residual_false_removes_mobilenetv2_connections_on_the_client_only() -> None:
    split = make_split("mobilenetv2", cut_layer=3, client_residual=False)

    assert not any("shortcut" in n for n in split.head.state_dict())
    for side, stages in ((split.head, "01"), (split.trunk, "23456")):
        blocks = [b for n in stages for b in side.get_submodule(f"units.stages.{n}")]
        expected = [side is split.trunk and b.depthwise.stride == (1, 1) for b in blocks]
        assert [block.residual for block in blocks] == expected


def test_mobilenetv2_bottleneck_squeezes_the_smashed_data_and_restores_it() -> None:
    split = make_split("mobilenetv2", cut_layer=4, bottleneck=Bottleneck(4, 2))

    assert split.smashed_shape == (4, 8, 8)
    assert split.trunk.up(smashed(split)).shape == (1, 8, 16, 16)
    assert split.trunk(smashed(split)).shape == (1, 320)


def test_unknown_backbone_is_named_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"backbone\.name=alexnet: unknown.*resnet18.*vgg19"):
        make_split("alexnet")


@pytest.mark.parametrize("cut_layer", [-1, 0, 10])
@pytest.mark.parametrize("client_residual", [True, False])
def test_cut_outside_the_network_is_refused(cut_layer: int, client_residual: bool) -> None:
    with pytest.raises(ValueError, match=rf"split\.cut_layer={cut_layer}: .* 1 to 9"):
        make_split(cut_layer=cut_layer, client_residual=client_residual)


@pytest.mark.parametrize("width", [0, -4, 2, 6, 30])
def test_width_that_group_norm_cannot_divide_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=rf"backbone\.width={width}: .*multiple of 4"):
        make_split(width=width)


@pytest.mark.parametrize("cut_layer", [1, 13])
def test_image_too_small_for_vgg_is_refused(cut_layer: int) -> None:
    with pytest.raises(ValueError, match=r"dataset\.image_size=16: too small"):
        make_split("vgg11", cut_layer=cut_layer, image_size=16)


@pytest.mark.parametrize("name", ["vgg11", "resnet18"])
def test_smallest_image_of_a_backbone_passes(name: str) -> None:
    size = 32 if name == "vgg11" else 1

    assert make_split(name, image_size=size).smashed_shape == (WIDTH, size, size)
