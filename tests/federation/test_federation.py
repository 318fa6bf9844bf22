"""The folded federation against the plain loop over clients, and its limits."""

from copy import deepcopy
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mocosfl.federation.server import SmashedStep
from mocosfl.models.split import Bottleneck
from tests.support.reference_comparison import (
    NUM_CLIENTS,
    assert_equal,
    compare_states,
    make_reference,
    named,
)
from tests.support.small_federation import (
    TAU,
    TEMPERATURE,
    make_federation,
    make_sgd,
    make_split,
    make_step,
    make_views,
    one_group,
    train_step,
)

POOL_SIZE, BATCH = 3, 2
QUEUE_LENGTH = 13  # no multiple of a step's rows, so that batches wrap in their middle


class Move(NamedTuple):
    """One step of a scenario."""

    pool: list[int]  # not in order of ids, so that position and id differ
    sync: bool


# The first pool leaves without a sync, the last three also; clients 0, 2 and 4 come back.
MOVES = [
    Move([4, 0, 2], False),
    Move([1, 4, 3], True),
    Move([1, 4, 3], False),
    Move([0, 4, 1], False),
    Move([2, 3, 0], False),
]

# Each pair of values of the three settings occurs.
CASES: dict[str, dict[str, Any]] = {
    f"{symmetric}-{'shared' if sharing else 'private'}-{'align' if align else 'own'}": {
        "symmetric": symmetric,
        "feature_sharing": sharing,
        "align_momentum": align,
    }
    for symmetric, sharing, align in (
        ("none", True, True),
        ("none", False, False),
        ("server", True, False),
        ("server", False, True),
        ("full", True, True),
        ("full", False, False),
    )
}
NETWORKS: dict[str, dict[str, Any]] = {
    "cut2": {"cut_layer": 2},
    "cut3": {"cut_layer": 3},
    "cut1_c4s2": {"bottleneck": Bottleneck(4, 2)},
    "cut2_c8s4_without_relu": {"cut_layer": 2, "bottleneck": Bottleneck(8, 4, relu=False)},
    "cut3_without_residual": {"cut_layer": 3, "client_residual": False},
}


def compare_with_loop(network: dict[str, Any], settings: dict[str, Any]) -> None:
    """Run all moves through both and compare each step's figures and every tensor at the end."""
    federation = make_federation(
        make_split(**network),
        num_clients=NUM_CLIENTS,
        pool_size=POOL_SIZE,
        queue_length=QUEUE_LENGTH,
        **settings,
    )
    reference = make_reference(federation, symmetric=settings["symmetric"])
    optimizer = make_sgd(federation)
    for number, (pool, sync) in enumerate(MOVES):
        views = make_views(number, POOL_SIZE, BATCH)
        output = train_step(federation, optimizer, pool, views, sync=sync)
        expected = reference.step(pool, *views)
        if sync:
            reference.sync(pool)
        assert output.loss.item() == pytest.approx(expected.loss, rel=1e-10)
        assert output.accuracy.item() == pytest.approx(expected.contrast_accuracy)
    compare_states(federation, optimizer, reference)


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES.keys())
def test_federation_equals_the_plain_loop_in_every_mode(settings: dict[str, Any]) -> None:
    compare_with_loop({}, settings)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_federation_equals_the_plain_loop_at_other_cuts(network: dict[str, Any]) -> None:
    compare_with_loop(network, CASES["full-private-own"])


def test_frozen_heads_equal_the_loop_with_learning_rate_zero() -> None:
    federation = make_federation(
        make_split(), num_clients=NUM_CLIENTS, pool_size=POOL_SIZE, frozen=True, align_momentum=True
    )
    reference = make_reference(federation, symmetric="server", client_lr=0.0)
    start = deepcopy(named(federation.clients.head))
    optimizer = make_sgd(federation)
    for number, (pool, _) in enumerate(MOVES):
        views = make_views(number, POOL_SIZE, BATCH)
        output = train_step(federation, optimizer, pool, views, sync=True)
        assert output.loss.item() == pytest.approx(reference.step(pool, *views).loss, rel=1e-10)

    for client in range(NUM_CLIENTS):
        state = federation.clients.client_state(client, optimizer)
        for kind in ("online", "momentum"):
            torch.testing.assert_close(state[kind], start, rtol=0, atol=0)
    torch.testing.assert_close(named(federation.clients.average_head()), start, rtol=0, atol=0)
    assert [group["name"] for group in optimizer.param_groups] == ["server"]


def test_one_client_is_centralised_moco() -> None:
    split = make_split(cut_layer=2)
    federation = make_federation(split, num_clients=1, pool_size=1, symmetric="none")
    server = federation.server
    network = deepcopy(nn.Sequential(split.head, server.trunk, server.projector))
    network.requires_grad_(True)
    momentum = deepcopy(network).requires_grad_(False)
    queue = server.queue.keys[0].clone()  # (K, D)
    sgd = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-3)
    optimizer = make_sgd(federation, server_lr=0.1, client_lr=0.1)

    for number in range(4):
        x1, x2 = make_views(number, 1, 6)
        output = train_step(federation, optimizer, [0], (x1, x2), sync=True)

        with torch.no_grad():
            for slow, fast in zip(momentum.parameters(), network.parameters(), strict=True):
                slow.mul_(TAU).add_(fast, alpha=1 - TAU)
            key = F.normalize(momentum(x2[0]), dim=1)
        query = F.normalize(network(x1[0]), dim=1)
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], 1) / TEMPERATURE
        loss = F.cross_entropy(logits, torch.zeros(6, dtype=torch.long))
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        queue = torch.cat([queue, key])[6:]  # a plain shift register: the oldest key first
        assert output.loss.item() == pytest.approx(loss.item(), rel=1e-10)

    trained = nn.Sequential(federation.encoder(), server.projector)
    assert_equal(list(named(trained).values()), list(named(network).values()))
    pointer = int(server.queue.pointers)
    assert_equal(server.queue.keys[0].roll(-pointer, 0), queue)


def test_clients_do_not_see_each_other_s_gradient() -> None:
    federation = make_federation(make_split(), num_clients=2, pool_size=2, symmetric="full")
    twin = deepcopy(federation)
    views = make_views(0, 2, BATCH)
    smashed = federation.smash(make_step(views))
    federation.learn(smashed).loss.backward()
    own_rows = smashed.query.detach()[: 2 * BATCH]  # of client 0: both views
    query = smashed.query.detach().requires_grad_()
    both = torch.cat([views[1], views[0]], 1)
    key = federation.clients.momentum(both.transpose(0, 1).flatten(1, 2)).detach()
    key = key.reshape(2 * BATCH, 2, *query.shape[1:]).transpose(0, 1).flatten(0, 1)
    groups = one_group(2, 2 * BATCH)
    twin.learn(SmashedStep(query, key, None, federation.clients.pool, groups)).loss.backward()

    head = deepcopy(federation.clients.average_head()).requires_grad_(True)  # all start equal
    sent = head(torch.cat([views[0][0], views[1][0]]))
    assert_equal(sent.detach(), own_rows)
    assert query.grad is not None
    sent.backward(query.grad[: 2 * BATCH])
    for name, parameter in federation.clients.online.named_parameters():
        assert parameter.grad is not None
        assert_equal(parameter.grad[0], head.get_parameter(name).grad)


def test_step_under_bf16_autocast_keeps_state_loss_and_gradients_in_fp32() -> None:
    federation = make_federation(make_split(cut_layer=2), num_clients=3, pool_size=3).float()
    twin = deepcopy(federation)
    views = tuple(view.float() for view in make_views(0, 3, BATCH))
    with torch.autocast("cpu", torch.bfloat16):
        output = federation.run(make_step(views))
    output.loss.backward()
    exact = twin.run(make_step(views))
    exact.loss.backward()

    assert output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(exact.loss.item(), rel=0.1)
    assert output.loss.item() != exact.loss.item()  # autocast was on
    lengths = federation.server.queue.keys.norm(dim=2)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=1e-6)
    trained = [p for p in federation.parameters() if p.requires_grad]
    assert {p.grad.dtype for p in trained if p.grad is not None} == {torch.float32}
    gradient = nn.utils.parameters_to_vector([p.grad for p in trained if p.grad is not None])
    expected = nn.utils.parameters_to_vector([p.grad for p in twin.parameters() if p.requires_grad])
    assert F.cosine_similarity(gradient, expected, 0) > 0.9
    momentum = dict(federation.server.momentum_trunk.named_parameters())
    torch.testing.assert_close(
        momentum, dict(twin.server.momentum_trunk.named_parameters()), rtol=0, atol=0
    )


def test_federation_turned_to_fp64_keeps_all_clients_in_full_precision() -> None:
    split = make_split()
    split.head.float()
    federation = make_federation(split, num_clients=2, pool_size=1).double()
    optimizer = make_sgd(federation)
    train_step(federation, optimizer, [1], make_views(0, 1, BATCH))
    before = deepcopy(federation.clients.client_state(1, optimizer))
    train_step(federation, optimizer, [0], make_views(1, 1, BATCH))

    torch.testing.assert_close(
        federation.clients.client_state(1, optimizer), before, rtol=0, atol=0
    )


def test_encoder_is_the_mean_head_followed_by_the_trunk() -> None:
    federation = make_federation(make_split(), num_clients=3, pool_size=2, symmetric="none")
    optimizer = make_sgd(federation)
    train_step(federation, optimizer, [2, 0], make_views(0, 2, BATCH))
    image = make_views(1, 1, 1)[0][0]
    states = [federation.clients.client_state(client, optimizer)["online"] for client in (0, 2)]
    head = make_split().head
    head.load_state_dict({name: (states[0][name] + states[1][name]) / 2 for name in states[0]})

    assert_equal(federation.encoder()(image), federation.server.trunk(head(image)))


def test_optimizer_names_its_groups_and_leaves_momentum_copies_out() -> None:
    federation = make_federation(make_split(), num_clients=3, pool_size=2)
    optimizer = make_sgd(federation, server_lr=0.3, client_lr=0.2)
    groups = {group["name"]: group for group in optimizer.param_groups}

    assert [(name, group["lr"]) for name, group in groups.items()] == [
        ("server", 0.3),
        ("clients", 0.2),
    ]
    assert set(groups["clients"]["params"]) == set(federation.clients.online.parameters())
    server = federation.server
    assert set(groups["server"]["params"]) == {
        *server.trunk.parameters(),
        *server.projector.parameters(),
    }
