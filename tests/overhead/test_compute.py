"""MACs by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from mocosfl.overhead.compute import client_macs, count_macs, server_macs
from mocosfl.overhead.network import build_network
from mocosfl.overhead.summary import compute_overhead
from tests.support.configurations import Compose

STEM = 64 * 3 * 9 * 32 * 32  # MACs of the 3x3 stem on an image of 32 px


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolution_costs_its_macs_forward_and_twice_backward(groups: int, transposed: bool):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv = kind(8, 16, 3, padding=1, groups=groups, bias=False, device="meta")
    images = torch.empty(2, 8, 10, 10, device="meta", requires_grad=True)
    forward = 2 * 16 * (8 // groups) * 9 * 10 * 10
    assert count_macs(lambda: conv(images)) == forward
    assert count_macs(lambda: conv(images).sum().backward()) == 3 * forward


def test_image_needs_no_gradient():
    conv = nn.Conv2d(3, 4, 1, device="meta")
    images = torch.empty(1, 3, 5, 5, device="meta")
    assert count_macs(lambda: conv(images).sum().backward()) == 2 * 4 * 3 * 25


def test_client_of_cut_1_costs_three_passes_of_its_stem(compose: Compose):
    config = compose(["dataset=cifar10"])
    assert client_macs(config, build_network(config), 5) == (3 * 5 * STEM, 3 * 5 * STEM)


def test_frozen_head_runs_forward_alone(compose: Compose):
    config = compose(["dataset=cifar10", "optimizer.client_lr=0"])
    # Query and key are computed; the paper counts one of them.
    assert client_macs(config, build_network(config), 1) == (2 * STEM, STEM)


def test_both_views_through_both_heads_cost_twice(compose: Compose):
    config = compose(["dataset=cifar10", "method=monacosfl"])
    assert client_macs(config, build_network(config), 1).counted == 2 * 3 * STEM


def test_labels_need_no_momentum_pass(compose: Compose):
    config = compose(["dataset=cifar10", "method=sfl_supervised"])
    assert client_macs(config, build_network(config), 1) == (2 * STEM, 2 * STEM)


@pytest.mark.parametrize(
    ("symmetric", "trunk_passes", "first_layer_passes", "logits"),
    [
        ("none", 4, 0, 1),  # online forward and backward (2), keys
        ("server", 8, -1, 2),  # the exchanged pass gives no gradient to its input
        ("full", 8, 0, 2),  # twice the rows
    ],
)
def test_server_costs_its_passes_and_the_logits(
    compose: Compose, symmetric: str, trunk_passes: int, first_layer_passes: int, logits: int
):
    config = compose(["dataset=cifar10", f"moco.symmetric={symmetric}"])
    network = build_network(config)
    server = network.server
    assert server is not None
    rows = 10
    smashed = torch.empty(rows, 64, 32, 32, device="meta")
    with torch.no_grad():
        forward = count_macs(lambda: server(smashed))
    first_layer = rows * 64 * 64 * 9 * 32 * 32
    expected = trunk_passes * forward + first_layer_passes * first_layer
    expected += logits * 2 * rows * 1024 * 6000  # forward, and the gradient of the embedding
    assert server_macs(config, network, rows) == expected


def test_whole_network_leaves_the_server_nothing(compose: Compose):
    config = compose(["dataset=cifar10", "method=fl_moco", "clients=20"])
    network = build_network(config)
    assert server_macs(config, network, 100) == 0
    with torch.no_grad():
        forward = count_macs(lambda: network.client(torch.empty(2, 3, 32, 32, device="meta")))
    logits = 2 * 2 * 1024 * (6000 // 20)
    # No gradient for the images.
    assert client_macs(config, network, 1).counted == 4 * forward - 2 * STEM + logits


def test_macs_in_all_are_of_the_steps_in_which_a_client_is_there(compose: Compose):
    config = compose(["dataset=cifar10", "clients=1000", "callbacks.measure_client_memory=false"])
    config.clients.dropout_probability = 0.5
    overhead = compute_overhead(config, np.full(1000, 50), images_from="", num_steps=400)
    assert overhead.clients[0].run_macs == pytest.approx(400 * 0.1 * 0.5 * 3 * STEM)
