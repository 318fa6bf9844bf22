"""A folded module against a loop over its clients, in output and in each client's own gradient."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mocosfl.federation.folding import fold, fold_images, load_single, stacked_state, unfold_images
from mocosfl.models.layers import StandardisedConv2d
from mocosfl.models.split import BACKBONES, Bottleneck, build_backbone
from mocosfl.models.vgg import STAGE_CONVS
from tests.support.small_federation import WIDTH, make_split

NUM_CLIENTS, BATCH = 3, 2

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "conv_strided_without_bias": lambda: nn.Conv2d(4, 6, 5, stride=2, padding=2, bias=False),
    "conv_grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "conv_depthwise": lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),
    "standardised_conv_depthwise": lambda: StandardisedConv2d(
        4, 4, 3, padding=1, groups=4, bias=False
    ),
    "conv_dilated": lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=1),
    "standardised_conv": lambda: StandardisedConv2d(4, 6, 3, padding=1, bias=False),
    "standardised_conv_1x1_with_bias": lambda: StandardisedConv2d(4, 6, 1, stride=2),
    "group_norm": lambda: nn.GroupNorm(2, 4),
    "group_norm_of_one_group": lambda: nn.GroupNorm(1, 4, eps=0.1),
    "relu": nn.ReLU,
    "identity": nn.Identity,
    "max_pool": lambda: nn.MaxPool2d(2),
    "average_pool": lambda: nn.AvgPool2d(2),
    "global_pool": lambda: nn.AdaptiveAvgPool2d(1),
    "nested": lambda: nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.Sequential(nn.ReLU(), nn.GroupNorm(3, 6))
    ),
}


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def diverge(folded: nn.Module) -> None:
    """Move each client's parameters by noise of its own."""
    for number, stacked in enumerate(stacked_state(folded).values()):
        stacked.add_(normal(*stacked.shape, seed=number), alpha=0.1)


def assert_folded_equals_loop(head: nn.Module, images: Tensor) -> None:
    """Compare outputs and gradients for images (P, b, C, H, W)."""
    head = head.double().requires_grad_(True)
    folded = fold(head, NUM_CLIENTS)
    diverge(folded)
    outputs = unfold_images(folded(fold_images(images)), NUM_CLIENTS)
    direction = normal(*outputs.shape, seed=99)
    if outputs.requires_grad:
        (outputs * direction).sum().backward()
    gradients = {name: parameter.grad for name, parameter in folded.named_parameters()}
    assert list(gradients) == [name for name, _ in head.named_parameters()]

    for client in range(NUM_CLIENTS):
        single = deepcopy(head)
        load_single(single, {name: t[client] for name, t in stacked_state(folded).items()})
        output = single(images[client])
        rows = slice(client * BATCH, (client + 1) * BATCH)
        torch.testing.assert_close(outputs[rows], output, rtol=1e-9, atol=1e-10)
        if output.requires_grad:
            (output * direction[rows]).sum().backward()
        for name, parameter in single.named_parameters():
            gradient = gradients[name]
            assert gradient is not None
            torch.testing.assert_close(gradient[client], parameter.grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_folded_layer_equals_a_loop_over_clients(layer: Callable[[], nn.Module]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = layer()
    assert_folded_equals_loop(head, normal(NUM_CLIENTS, BATCH, 4, 8, 8, seed=1))


@pytest.mark.parametrize(
    "layer", [nn.Linear(4, 5), nn.Linear(4, 5, bias=False), nn.BatchNorm1d(4)], ids=str
)
def test_folded_layer_of_vectors_equals_a_loop_over_clients(layer: nn.Module) -> None:
    assert_folded_equals_loop(layer, normal(NUM_CLIENTS, BATCH, 4, seed=1))


@pytest.mark.parametrize("name", BACKBONES)
def test_folded_head_equals_a_loop_over_clients_at_any_depth(name: str) -> None:
    size = 32 if name in STAGE_CONVS else 8  # the smallest that no pool or stride exhausts
    num_units = len(build_backbone(name, width=WIDTH, image_size=size).units)
    # Of the two deep ones only early cuts: their parts are those of resnet50.
    deep = name in ("resnet101", "resnet152")
    for cut_layer in (2, 5) if deep else (2, num_units // 2, num_units):
        head = make_split(name, cut_layer=cut_layer, image_size=size).head
        assert_folded_equals_loop(head, normal(NUM_CLIENTS, BATCH, 3, size, size, seed=1))


@pytest.mark.parametrize("cut_layer", range(1, 10))
def test_folded_resnet18_equals_a_loop_at_every_cut_with_any_variant(cut_layer: int) -> None:
    variants: list[dict[str, Any]] = [
        {"bottleneck": Bottleneck(4, 1, kernel_size=5)},
        {"bottleneck": Bottleneck(8, 4, relu=False), "client_residual": False},
    ]
    for variant in variants:
        head = make_split(cut_layer=cut_layer, **variant).head
        assert_folded_equals_loop(head, normal(NUM_CLIENTS, BATCH, 3, 8, 8, seed=1))


@pytest.mark.parametrize("cut_layer", [1, 3, 6, 9])
def test_folded_mobilenetv2_equals_a_loop_with_any_variant(cut_layer: int) -> None:
    variants: list[dict[str, Any]] = [
        {"bottleneck": Bottleneck(4, 2)},
        {"bottleneck": Bottleneck(8, 1, relu=False), "client_residual": False},
    ]
    for variant in variants:
        head = make_split("mobilenetv2", cut_layer=cut_layer, **variant).head
        assert_folded_equals_loop(head, normal(NUM_CLIENTS, BATCH, 3, 16, 16, seed=1))


def test_fold_gives_every_client_the_head_s_values_under_its_names() -> None:
    head = make_split(cut_layer=3, bottleneck=Bottleneck(4, 2)).head
    folded = fold(head, NUM_CLIENTS)
    state = stacked_state(folded)

    assert list(state) == [name for name, _ in head.named_parameters()]
    for name, parameter in head.named_parameters():
        assert state[name].shape == (NUM_CLIENTS, *parameter.shape)
        assert all(torch.equal(copy, parameter) for copy in state[name])
    state["down.convs.0.bias"].add_(1)  # a copy: neither the head nor another fold moves
    assert not torch.equal(head.down.convs[0].bias, state["down.convs.0.bias"][0])


def test_folds_of_one_head_share_nothing() -> None:
    head = make_split(cut_layer=2).head
    one, other = fold(head, 2), fold(head, 2)
    calls: list[str] = []
    one.register_forward_hook(lambda *_: calls.append("one"))
    one.get_submodule("units").register_forward_hook(lambda *_: calls.append("units"))
    one.eval()
    images = normal(2, 1, 3, 8, 8, seed=0)

    other(fold_images(images))
    head(images[0])
    assert calls == []
    one(fold_images(images))
    assert calls == ["units", "one"]
    assert other.training
    assert head.training
    tensors = [p.data_ptr() for module in (head, one, other) for p in module.parameters()]
    assert len(set(tensors)) == len(tensors)


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 4, 2), nn.InstanceNorm2d(4)]
)
def test_layer_that_cannot_be_folded_is_an_error_that_says_what_can(layer: nn.Module) -> None:
    head = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(layer, nn.ReLU()))
    with pytest.raises(ValueError, match=rf"{type(layer).__name__} cannot run.*use GroupNorm"):
        fold(head, 2)


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding_mode": "reflect"}])
def test_convolution_with_other_padding_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="plain zero padding"):
        fold(nn.Conv2d(3, 4, 3, **options), 2)


def test_images_fold_client_by_client_into_channels_and_back_into_pool_order() -> None:
    images = normal(3, 2, 4, 5, 6, seed=0)
    folded = fold_images(images)

    assert folded.shape == (2, 12, 5, 6)
    for client in range(3):
        assert torch.equal(folded[:, 4 * client : 4 * client + 4], images[client])
    assert torch.equal(unfold_images(folded, 3), images.flatten(0, 1))
