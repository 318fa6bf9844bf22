"""The simulated attackers: who trains, who pays, and that the fold is a loop over clients."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mocosfl.federation.federation import Federation
from mocosfl.federation.step_input import ClientGroup
from mocosfl.models.split import Bottleneck
from mocosfl.privacy.attackers import AttackerPool, Regulariser, decoder_lr_factor
from mocosfl.privacy.decoders import build_decoder
from mocosfl.privacy.ssim import ssim
from tests.support.small_federation import (
    SIZE,
    make_federation,
    make_split,
    make_step,
    make_views,
    one_group,
)

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
LR = 0.01


def make_decoder(batch: int = 2, name: str = "res_normN1C8") -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        decoder = build_decoder(name, (4, 4, 4), image_size=SIZE, batch_size=batch)
    return decoder.double()


def make_attackers(
    num_clients: int, pool_size: int | None = None, *, batch: int = 2, target: float = 0.0
) -> AttackerPool:
    return AttackerPool(
        make_decoder(batch),
        Regulariser(alpha=2.0, target_ssim=target, decoder_lr=LR),
        num_clients=num_clients,
        pool_size=pool_size or num_clients,
        mean=MEAN,
        std=STD,
    ).double()


def make_clients(num_clients: int) -> Federation:
    split = make_split(cut_layer=2, bottleneck=Bottleneck(4, 2))
    return make_federation(split, num_clients=num_clients, pool_size=num_clients)


def make_rows(num_clients: int, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return smashed data (P * b, 4, 4, 4) and images (P * b, 3, SIZE, SIZE)."""
    generator = torch.Generator().manual_seed(seed)
    rows = num_clients * batch
    smashed = torch.rand(rows, 4, 4, 4, generator=generator, dtype=torch.float64)
    images = torch.rand(rows, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
    return smashed, images


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()
            if isinstance(tensor, Tensor)}  # fmt: skip


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def penalty_of(federation: Federation, attackers: AttackerPool, views: Any) -> Tensor:
    step = make_step(views)
    smashed = federation.smash(step)
    return attackers.penalty(smashed.query, attackers.images_of(step.view1), step.groups).penalty


def test_penaltys_gradient_reaches_the_heads_and_nothing_else():
    federation, attackers = make_clients(3), make_attackers(3)
    penalty_of(federation, attackers, make_views(0, 3, 2)).backward()
    for parameter in federation.clients.online.parameters():
        assert parameter.grad is not None
    weights = [p for n, p in federation.clients.online.named_parameters() if n.endswith("weight")]
    assert all(bool((p.grad != 0).any()) for p in weights)
    others = [*federation.server.parameters(), *attackers.parameters()]
    assert others
    assert all(parameter.grad is None for parameter in others)


def test_penaltys_gradient_is_a_finite_difference():
    federation, attackers = make_clients(2), make_attackers(2)
    federation.eval()  # the momentum heads stay
    views = make_views(0, 2, 2)
    penalty_of(federation, attackers, views).backward()
    generator = torch.Generator().manual_seed(5)
    epsilon = 1e-6
    for name, parameter in federation.clients.online.named_parameters():
        assert parameter.grad is not None
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values = []
        with torch.no_grad():
            for sign in (1, -1):
                parameter += sign * epsilon * direction
                values.append(float(penalty_of(federation, attackers, views)))
                parameter -= sign * epsilon * direction
        slope = (values[0] - values[1]) / (2 * epsilon)
        analytic = float((parameter.grad * direction).sum())
        assert slope == pytest.approx(analytic, rel=1e-5, abs=1e-8), name


def test_attackers_step_leaves_the_heads_alone_and_moves_the_attackers():
    federation, attackers = make_clients(3), make_attackers(3)
    heads, decoders = state_of(federation), state_of(attackers.decoders)
    step = make_step(make_views(0, 3, 2))
    with torch.no_grad():
        query = federation.smash_untrained(step).query
    images = attackers.images_of(step.view1)
    first = attackers.train_step(query, images, step.groups)
    assert_equal(state_of(federation), heads)
    assert all(p.grad is None for p in federation.parameters())
    after = state_of(attackers.decoders)
    assert all(not torch.equal(after[name], tensor) for name, tensor in decoders.items())
    for _ in range(20):
        last = attackers.train_step(query, images, step.groups)
    assert bool((last > first + 0.05).all())  # it learns to see more


def test_similarity_below_the_target_costs_nothing():
    federation, attackers = make_clients(2), make_attackers(2, target=1.0)
    penalty = penalty_of(federation, attackers, make_views(0, 2, 2))
    assert penalty.item() == 0
    penalty.backward()
    assert all(bool((p.grad == 0).all()) for p in federation.clients.online.parameters())


def test_penalty_is_alpha_times_the_excess_of_each_client():
    attackers = make_attackers(2, target=0.01)
    smashed, images = make_rows(2, 2)
    privacy = attackers.penalty(smashed, images, one_group(2, 2))
    decoded = attackers.reconstruct(smashed, one_group(2, 2))
    each = ssim(decoded, images).reshape(2, 2).mean(1)
    assert privacy.penalty.item() == pytest.approx(2.0 * float((each - 0.01).clamp(min=0).sum()))
    assert float(privacy.attacker_ssim) == pytest.approx(float(each.mean()))


@pytest.mark.parametrize("batch", [2, 20], ids=["group norm", "batch norm"])
def test_folded_attackers_are_plain_ones_in_a_loop(batch: int):
    attackers, groups = make_attackers(3, batch=batch), one_group(3, batch)
    plain = [make_decoder(batch) for _ in range(3)]
    adams = [torch.optim.Adam(decoder.parameters(), lr=LR) for decoder in plain]
    for seed in range(3):
        smashed, images = make_rows(3, batch, seed)
        found = attackers.train_step(smashed, images, groups)
        for client, (decoder, adam) in enumerate(zip(plain, adams, strict=True)):
            rows = slice(client * batch, (client + 1) * batch)
            similarity = ssim(decoder.train()(smashed[rows]), images[rows]).mean()
            assert float(found[client]) == pytest.approx(similarity.item(), abs=1e-10)
            adam.zero_grad()
            (-similarity).backward()
            adam.step()
    smashed, images = make_rows(3, batch, 9)
    decoded = attackers.reconstruct(smashed, groups)
    by_hand = torch.cat([d.eval()(s) for d, s in zip(plain, smashed.split(batch), strict=True)])
    assert torch.allclose(decoded, by_hand, atol=1e-8)


@pytest.mark.parametrize("batch", [2, 20], ids=["group norm", "batch norm"])
def test_attacker_of_a_client_that_misses_stands_still(batch: int):
    some, alone = make_attackers(3, batch=batch), make_attackers(2, batch=batch)
    for seed in range(2):
        smashed, images = make_rows(3, batch, seed)
        kept = [slice(0, batch), slice(2 * batch, 3 * batch)]
        rows = [torch.cat([x[part] for part in kept]) for x in (smashed, images)]
        groups = (ClientGroup(torch.tensor([0, 2]), batch),)
        some.train_step(rows[0], rows[1], groups)
        alone.train_step(rows[0], rows[1], one_group(2, batch))
    fresh, stacks = make_attackers(3, batch=batch)._stacks(), some._stacks()
    for name, stack in alone._stacks().items():
        assert torch.allclose(stacks[name][[0, 2]], stack, atol=1e-10), name
        assert torch.equal(stacks[name][1], fresh[name][1]), name


def test_clients_of_different_batches_train_as_on_their_own():
    both, groups = make_attackers(2), (
        ClientGroup(torch.tensor([0]), 3),
        ClientGroup(torch.tensor([1]), 2),
    )  # fmt: skip
    smashed, images = make_rows(1, 5)
    both.train_step(smashed, images, groups)
    for client, rows in enumerate((slice(0, 3), slice(3, 5))):
        alone = make_attackers(1)
        size = rows.stop - rows.start
        alone.train_step(smashed[rows], images[rows], one_group(1, size))
        for name, stack in alone._stacks().items():
            assert torch.allclose(both._stacks()[name][client], stack[0], atol=1e-10), name


def test_attackers_stay_with_their_clients():
    sampled, everyone = make_attackers(4, 2), make_attackers(4)
    for seed, pool in enumerate(([0, 1], [2, 0], [3, 1], [0, 2])):
        smashed, images = make_rows(2, 2, seed)
        sampled.enter(torch.tensor(pool))
        sampled.train_step(smashed, images, one_group(2, 2))
        order = torch.tensor(pool).argsort()
        rows = [x.reshape(2, 2, *x.shape[1:])[order].flatten(0, 1) for x in (smashed, images)]
        groups = (ClientGroup(torch.tensor(sorted(pool)), 2),)
        everyone.train_step(rows[0], rows[1], groups)
    for pool in ([0, 1], [2, 3]):
        sampled.enter(torch.tensor(pool))
        for name, stack in sampled._stacks().items():
            assert torch.allclose(stack, everyone._stacks()[name][pool], atol=1e-10), name


def test_saved_attackers_go_on_as_they_were():
    one = make_attackers(4, 2)
    for seed, pool in enumerate(([0, 1], [2, 0])):
        one.enter(torch.tensor(pool))
        one.train_step(*make_rows(2, 2, seed), one_group(2, 2))
    other = make_attackers(4, 2)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for seed, pool in enumerate(([1, 3], [0, 2])):
        for attackers in (one, other):
            attackers.enter(torch.tensor(pool))
            attackers.train_step(*make_rows(2, 2, seed), one_group(2, 2))
    for name, stack in one._stacks().items():
        assert torch.equal(stack, other._stacks()[name]), name


def test_learning_rate_falls_at_epochs_60_120_and_160_of_200():
    factors = [decoder_lr_factor(epoch / 200) for epoch in range(200)]
    assert [factors.count(0.2**n) for n in range(4)] == [60, 60, 40, 40]
    for num_rounds in range(1, 60):  # no rounding error moves a milestone
        factors = [decoder_lr_factor(r / num_rounds) for r in range(num_rounds)]
        assert factors.count(1.0) == -(-3 * num_rounds // 10)


def test_images_are_the_views_without_their_normalisation():
    attackers = make_attackers(1)
    images = torch.rand(2, 3, SIZE, SIZE, dtype=torch.float64)
    views = (images - attackers.mean) / attackers.std
    assert torch.allclose(attackers.images_of(views), images)


def test_half_precision_of_the_heads_leaves_the_similarity_exact():
    attackers = make_attackers(1, batch=20).float()
    smashed, images = (x.float() for x in make_rows(1, 20))
    exact = attackers.penalty(smashed, images, one_group(1, 20))
    with torch.autocast("cpu", torch.bfloat16):
        rough = attackers.penalty(smashed.bfloat16(), images, one_group(1, 20))
    assert rough.penalty.dtype == torch.float32
    assert float(rough.attacker_ssim) == pytest.approx(float(exact.attacker_ssim), abs=2e-2)
