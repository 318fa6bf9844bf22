"""A small federation beside the plain loop over its clients, state by state."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mocosfl.federation.federation import Federation
from tests.support.reference import ReferenceFederation
from tests.support.small_federation import TAU, TEMPERATURE

NUM_CLIENTS = 5


def assert_equal(measured: Any, expected: Any) -> None:
    torch.testing.assert_close(measured, expected, rtol=1e-10, atol=1e-10)


def named(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def prefixed(trunk: nn.Module, projector: nn.Module) -> dict[str, Tensor]:
    """Name parameters as in Sequential(trunk, projector)."""
    return named(nn.Sequential(trunk, projector))


def buffers(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return SGD's buffers by name; those of a client that never took part are zeros."""
    return {
        name: optimizer.state[p]["momentum_buffer"] if p in optimizer.state else torch.zeros_like(p)
        for name, p in module.named_parameters()
    }


def make_reference(federation: Federation, **more: Any) -> ReferenceFederation:
    """Build the plain loop from a federation's initial values."""
    server = federation.server
    settings: dict[str, Any] = {
        "num_clients": NUM_CLIENTS,
        "queues": list(server.queue.keys.transpose(1, 2)),
        "temperature": TEMPERATURE,
        "server_lr": 0.05,
        "client_lr": 0.1,
        "tau": TAU,
        "weight_decay": 5e-3,
        "align_momentum": federation.align_momentum,
    }
    head = deepcopy(federation.clients.average_head()).requires_grad_(True)
    trunk = nn.Sequential(server.trunk, server.projector)
    return ReferenceFederation(head, trunk, **{**settings, **more})


def compare_states(
    federation: Federation, optimizer: Optimizer, reference: ReferenceFederation
) -> None:
    for client in range(NUM_CLIENTS):
        state = federation.clients.client_state(client, optimizer)
        head = reference.heads[client]
        assert_equal(state["online"], named(head))
        assert_equal(state["momentum"], named(reference.momentum_heads[client]))
        assert_equal(state["sgd"], buffers(head, reference.client_optimizers[client]))
    server = federation.server
    assert_equal(prefixed(server.trunk, server.projector), named(reference.server))
    assert_equal(
        prefixed(server.momentum_trunk, server.momentum_projector),
        named(reference.momentum_server),
    )
    expected = torch.stack([queue.columns.T for queue in reference.queues])
    assert_equal(server.queue.keys, expected)
    assert server.queue.pointers.tolist() == [queue.pointer for queue in reference.queues]
