"""The supervised baselines: labels on the server, against plain training."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl.federation.client_pool import ClientPool
from mocosfl.federation.federation import Federation
from mocosfl.federation.server import SupervisedServer
from mocosfl.models.projector import Projector
from tests.support.small_federation import TAU, make_sgd, make_split, make_step, make_views

NUM_CLIENTS, BATCH, NUM_CLASSES = 3, 2, 4


def make_supervised() -> Federation:
    split = make_split(cut_layer=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        classifier = Projector(split.feature_dim, hidden_dim=None, embedding_dim=NUM_CLASSES)
    clients = ClientPool(
        split.head,
        num_clients=NUM_CLIENTS,
        pool_size=NUM_CLIENTS,
        momentum=TAU,
        stateless=False,
        frozen=False,
    )
    server = SupervisedServer(split.trunk, classifier.double(), NUM_CLASSES)
    return Federation(clients, server, both_views=False, align_momentum=False)


def draw_labels(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(NUM_CLASSES, (NUM_CLIENTS * BATCH,), generator=generator)


def test_split_supervised_training_equals_a_loop_over_clients() -> None:
    federation = make_supervised()
    head = deepcopy(federation.clients.average_head()).requires_grad_(True)
    heads = [deepcopy(head) for _ in range(NUM_CLIENTS)]
    server = nn.Sequential(deepcopy(federation.server.trunk), deepcopy(federation.server.projector))
    settings = {"momentum": 0.9, "weight_decay": 5e-3}
    loops = [torch.optim.SGD(module.parameters(), 0.1, **settings) for module in heads]
    loops.append(torch.optim.SGD(server.parameters(), 0.05, **settings))
    optimizer = make_sgd(federation)
    for number in range(3):
        view1, view2 = make_views(number, NUM_CLIENTS, BATCH)
        labels = draw_labels(number)
        step = make_step((view1, view2), labels=labels)._replace(view2=None)
        optimizer.zero_grad()
        output = federation.run(step)
        output.loss.backward()
        optimizer.step()

        logits = server(torch.cat([head(x) for head, x in zip(heads, view1, strict=True)]))
        loss = F.cross_entropy(logits, labels)
        for loop in loops:
            loop.zero_grad()
        loss.backward()
        for loop in loops:
            loop.step()
        assert output.loss.item() == pytest.approx(loss.item(), rel=1e-10)
        expected = (logits.argmax(1) == labels).double().mean().item()
        assert output.accuracy.item() == pytest.approx(expected)
    for client, own in enumerate(heads):
        state = federation.clients.client_state(client, optimizer)
        trained = {n: p.detach() for n, p in own.named_parameters()}
        torch.testing.assert_close(state["online"], trained)
        start = {n: p.detach() for n, p in federation.clients.head.named_parameters()}
        torch.testing.assert_close(state["momentum"], start)  # unused, so left where they were
    mine = [p.detach() for p in federation.server.parameters()]
    torch.testing.assert_close(mine, [p.detach() for p in server.parameters()])


def test_uniform_loss_is_that_of_a_guess_among_the_classes() -> None:
    assert make_supervised().server.uniform_loss == pytest.approx(1.3862943611)  # ln 4
