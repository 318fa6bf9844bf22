"""Whole networks on the clients: federated averaging of MoCo, and MoCo on one machine."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from mocosfl.federation.client_pool import ClientPool
from mocosfl.federation.federation import Federation
from mocosfl.federation.server import Server
from mocosfl.federation.step_input import ClientGroup, Step
from mocosfl.models.projector import Projector
from mocosfl.models.whole_network import WholeNetwork
from tests.support.reference_local import LocalClient, federated_average
from tests.support.small_federation import (
    DIM,
    TAU,
    TEMPERATURE,
    make_queue,
    make_sgd,
    make_split,
    make_views,
    train_step,
)

NUM_CLIENTS, BATCH, QUEUE_LENGTH, LR = 4, 2, 7, 0.1


def make_whole(pool_size: int, *, batch_norm: bool = False) -> Federation:
    """Build a federation of whole networks in float64, as `method=fl_moco` does."""
    split = make_split(cut_layer=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        projector = Projector(
            split.feature_dim, hidden_dim=12, embedding_dim=DIM, batch_norm=batch_norm
        ).double()
    clients = ClientPool(
        WholeNetwork(split.head.units, projector),
        num_clients=NUM_CLIENTS,
        pool_size=pool_size,
        momentum=TAU,
        stateless=False,
        frozen=False,
    )
    server = Server(
        nn.Identity(),
        nn.Identity(),
        make_queue(NUM_CLIENTS, QUEUE_LENGTH),
        temperature=TEMPERATURE,
        momentum=TAU,
        two_sided=False,
    )
    return Federation(clients, server, both_views=True, align_momentum=False, whole_network=True)


def make_loop(federation: Federation) -> list[LocalClient]:
    """Return the clients of the plain loop, equal to those of the federation."""
    network = federation.clients.average_head().requires_grad_(True)
    server = federation.server
    assert isinstance(server, Server)
    return [
        LocalClient(network, keys.T, lr=LR, tau=TAU, temperature=TEMPERATURE)
        for keys in server.queue.keys
    ]


def assert_equal_states(
    federation: Federation, optimizer: Optimizer, loop: Sequence[LocalClient]
) -> None:
    server = federation.server
    assert isinstance(server, Server)
    for number, client in enumerate(loop):
        state = federation.clients.client_state(number, optimizer)
        for kind, module in (("online", client.network), ("momentum", client.momentum)):
            expected = {name: p.detach() for name, p in module.named_parameters()}
            torch.testing.assert_close(state[kind], expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(server.queue.keys[number], client.queue.columns.T)


@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "BatchNorm in the projector"])
def test_folded_networks_equal_a_loop_over_clients_that_train_alone(batch_norm: bool) -> None:
    federation = make_whole(3, batch_norm=batch_norm)
    loop = make_loop(federation)
    optimizer = make_sgd(federation, client_lr=LR)
    moves = [([2, 0, 1], False), ([2, 0, 1], True), ([3, 1, 0], False), ([0, 2, 3], False)]
    for number, (pool, sync) in enumerate(moves):
        view1, view2 = make_views(number, 3, BATCH)
        output = train_step(federation, optimizer, pool, (view1, view2), sync=sync)
        losses = [
            loop[client].step(view1[place], view2[place]) for place, client in enumerate(pool)
        ]
        assert output.loss.item() == pytest.approx(sum(losses) / 3, rel=1e-10)
        if sync:
            federated_average(loop, pool)
    assert_equal_states(federation, optimizer, loop)


def test_unequal_and_missing_whole_networks_train_as_if_alone() -> None:
    federation = make_whole(3)
    loop = make_loop(federation)
    optimizer = make_sgd(federation, client_lr=LR)
    for number, there in enumerate([[0, 1, 2], [1], [0, 2], [0, 1, 2]]):
        pool, sizes = [2, 0, 3], [3, 1, 1]
        views = [make_views(10 * number + place, 1, sizes[place]) for place in there]
        groups = tuple(
            ClientGroup(torch.tensor(places), size)
            for size, places in ((3, [p for p in there if p == 0]), (1, [p for p in there if p]))
            if places
        )
        view1, view2 = (torch.cat([pair[i][0] for pair in views]) for i in range(2))
        step = Step(view1, view2, None, torch.tensor(pool), groups, 0, 0, True, False)
        federation.clients.enter(step.pool, optimizer)
        places = None if len(there) == 3 else torch.tensor(there)
        with federation.clients.sparing(places, optimizer):
            optimizer.zero_grad()
            federation.run(step).loss.backward()
            optimizer.step()
        for place, (x1, x2) in zip(there, views, strict=True):
            loop[pool[place]].step(x1[0], x2[0])
    assert_equal_states(federation, optimizer, loop)


def test_optimizer_of_whole_networks_has_no_server_side() -> None:
    optimizer = make_sgd(make_whole(2))
    assert [group["name"] for group in optimizer.param_groups] == ["clients"]


def test_encoder_ends_before_the_projector() -> None:
    federation = make_whole(2)
    split = make_split(cut_layer=None)
    image = make_views(0, 1, 2)[0][0]
    torch.testing.assert_close(federation.encoder()(image), split.trunk(split.head(image)))
