"""The server's step written out: what enters the queue, which gradient goes back."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl.federation.ema import update_ema
from mocosfl.federation.loss import contrastive_loss
from mocosfl.federation.server import Server, ServerOutput, SmashedStep
from mocosfl.models.projector import Projector
from tests.support.small_federation import (
    DIM,
    TAU,
    TEMPERATURE,
    make_projector,
    make_queue,
    make_split,
    one_group,
)

ROWS = 4
POOL = torch.tensor([2, 0])


def make_server(*, two_sided: bool, num_queues: int = 1, length: int = 11) -> Server:
    """Build a server whose momentum copies differ from the online parts."""
    split = make_split(cut_layer=7)
    server = Server(
        split.trunk,
        make_projector(split),
        make_queue(num_queues, length),
        temperature=TEMPERATURE,
        momentum=TAU,
        two_sided=two_sided,
    )
    generator = torch.Generator().manual_seed(3)
    for part in (server.momentum_trunk, server.momentum_projector):
        for parameter in part.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return server


def smashed(seed: int) -> Tensor:
    shape = (ROWS, *make_split(cut_layer=7).smashed_shape)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def learn(server: Server, step: SmashedStep) -> ServerOutput:
    """Run the server's side of a training step."""
    server.update_momentum()
    passes = server.contrast(step)
    server.enqueue(passes.keys)
    return passes.output


def as_step(query: Tensor, key: Tensor, pool: Tensor = POOL) -> SmashedStep:
    """Give each client of the pool equally many of the rows."""
    return SmashedStep(query, key, None, pool, one_group(len(pool), len(query) // len(pool)))


def momentum_keys(server: Server, rows: Tensor) -> Tensor:
    with torch.no_grad():
        return F.normalize(server.momentum_projector(server.momentum_trunk(rows)), dim=1)


def queries(server: Server, rows: Tensor) -> Tensor:
    return F.normalize(server.projector(server.trunk(rows)), dim=1)


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    return {name: p.grad for name, p in module.named_parameters() if p.requires_grad}


def test_momentum_copies_move_before_the_keys_are_made() -> None:
    server = make_server(two_sided=False)
    before, q, k = deepcopy(server), smashed(0), smashed(1)
    learn(server, as_step(q, k))

    for momentum, online in (("momentum_trunk", "trunk"), ("momentum_projector", "projector")):
        for name, parameter in server.get_submodule(momentum).named_parameters():
            slow = before.get_submodule(momentum).get_parameter(name)
            fast = before.get_submodule(online).get_parameter(name)
            torch.testing.assert_close(parameter, TAU * slow + (1 - TAU) * fast)
            assert not parameter.requires_grad
    torch.testing.assert_close(server.queue.keys[0, :ROWS], momentum_keys(server, k))
    assert not torch.allclose(momentum_keys(server, k), momentum_keys(before, k))


def test_two_sided_loss_is_the_sum_of_both_passes_against_the_old_queue() -> None:
    server = make_server(two_sided=True)
    old = server.queue.keys.clone()
    q, k = smashed(0), smashed(1)
    output = learn(server, as_step(q, k))

    settings: dict[str, Any] = {"negatives": old, "temperature": TEMPERATURE}
    first = contrastive_loss(queries(server, q), momentum_keys(server, k), **settings)
    second = contrastive_loss(queries(server, k), momentum_keys(server, q), **settings)
    torch.testing.assert_close(output.loss, first.loss + second.loss)
    torch.testing.assert_close(output.accuracy, second.contrast_accuracy)


def test_two_sided_step_enqueues_keys_of_queries_before_keys_of_keys() -> None:
    server = make_server(two_sided=True)
    q, k = smashed(0), smashed(1)
    learn(server, as_step(q, k))

    expected = torch.cat([momentum_keys(server, q), momentum_keys(server, k)])
    torch.testing.assert_close(server.queue.keys[0, : 2 * ROWS], expected)
    assert server.queue.pointers.tolist() == [2 * ROWS]


def test_two_sided_step_sends_only_the_gradient_of_the_query_of_the_first_pass() -> None:
    server = make_server(two_sided=True)
    one_sided = deepcopy(server)
    one_sided.two_sided = False
    q, twin, k = smashed(0).requires_grad_(), smashed(0).requires_grad_(), smashed(1)
    learn(server, as_step(q, k)).loss.backward()
    learn(one_sided, as_step(twin, k)).loss.backward()

    torch.testing.assert_close(q.grad, twin.grad, rtol=1e-10, atol=1e-12)
    ours, theirs = gradients(server), gradients(one_sided)
    for name, gradient in ours.items():  # while the server learns from both passes
        assert gradient is not None
        assert not torch.allclose(gradient, theirs[name]), name  # type: ignore[arg-type]


def test_private_queues_take_the_rows_of_their_client_by_its_place_in_the_pool() -> None:
    server = make_server(two_sided=True, num_queues=3)
    old = server.queue.keys.clone()
    q, k = smashed(0), smashed(1)
    learn(server, as_step(q, k))
    of_q, of_k = momentum_keys(server, q), momentum_keys(server, k)

    assert server.queue.pointers.tolist() == [4, 0, 4]
    for client, rows in ((2, slice(0, 2)), (0, slice(2, 4))):
        expected = torch.cat([of_q[rows], of_k[rows]])
        torch.testing.assert_close(server.queue.keys[client, :4], expected)
        torch.testing.assert_close(server.queue.keys[client, 4:], old[client, 4:])
    assert torch.equal(server.queue.keys[1], old[1])


def test_private_queues_are_the_only_negatives_of_their_client_s_rows() -> None:
    server = make_server(two_sided=False, num_queues=3)
    old = server.queue.keys.clone()
    q, k = smashed(0), smashed(1)
    output = learn(server, as_step(q, k))

    parts = [
        contrastive_loss(
            queries(server, q)[rows],
            momentum_keys(server, k)[rows],
            negatives=old[client][None],
            temperature=TEMPERATURE,
        )
        for client, rows in ((2, slice(0, 2)), (0, slice(2, 4)))
    ]
    torch.testing.assert_close(output.loss, (parts[0].loss + parts[1].loss) / 2)


def test_queue_holds_length_one_keys_and_is_part_of_the_state() -> None:
    server = make_server(two_sided=True)
    learn(server, as_step(smashed(0), smashed(1)))

    lengths = server.queue.keys.norm(dim=2)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    assert {"queue.keys", "queue.pointers"} <= server.state_dict().keys()


class Fixed(nn.Module):
    """A projector whose embeddings are given."""

    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        self.register_buffer("embeddings", embeddings)

    def forward(self, features: Tensor) -> Tensor:
        return self.embeddings[: len(features)]


@pytest.mark.parametrize(("collapsed", "expected"), [(True, 0.0), (False, 1.0)])
def test_embedding_std_tells_collapse_from_spread(collapsed: bool, expected: float) -> None:
    # Both directions of each axis: mean 0, and deviation 1 / sqrt(D).
    axes = torch.eye(DIM, dtype=torch.float64)
    spread = torch.cat([axes, -axes])
    embeddings = axes[:1].expand(2 * DIM, -1) if collapsed else spread
    server = Server(
        nn.Identity(),
        Fixed(embeddings),
        make_queue(1, 20),
        temperature=TEMPERATURE,
        momentum=TAU,
        two_sided=False,
    )
    rows = torch.zeros(2 * DIM, 1)
    output = learn(server, as_step(rows, rows, torch.tensor([0])))

    assert output.embedding_std.item() == pytest.approx(expected)


def test_batch_norm_of_the_projector_is_over_the_rows_of_one_pass() -> None:
    server = make_server(two_sided=True)
    features = server.projector.linears[0].in_features
    projector = Projector(features, hidden_dim=12, embedding_dim=DIM, batch_norm=True).double()
    server.projector, server.momentum_projector = projector, deepcopy(projector)
    query, key = smashed(1), smashed(2)
    apart = deepcopy(server)
    update_ema(apart.momentum_trunk, apart.trunk, TAU)
    negatives = apart.queue.keys.clone()
    expected = 0.0
    for a, b in ((query, key), (key, query)):
        z = F.normalize(apart.projector(apart.trunk(a)), dim=1)
        loss = contrastive_loss(
            z, momentum_keys(apart, b), negatives=negatives, temperature=TEMPERATURE
        )
        expected += float(loss.loss.detach())

    output = learn(server, as_step(query, key))

    assert float(output.loss.detach()) == pytest.approx(expected, rel=1e-10)
    for name, value in apart.projector.norm.state_dict().items():
        torch.testing.assert_close(server.projector.norm.state_dict()[name], value)
