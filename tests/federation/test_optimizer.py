"""Learning rates at hand-computed rounds."""

import math
from typing import Any

import pytest

from mocosfl.federation.optimizer import OptimizerSettings, published_client_factor, round_factor
from mocosfl.training.module import MocoSFL
from tests.support.small_federation import make_federation, make_split


def test_cosine_falls_from_one_to_zero_over_the_rounds() -> None:
    factor = round_factor("cosine", num_rounds=200, decay=0.1)

    assert factor(0) == 1.0
    assert factor(50) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert factor(100) == pytest.approx(0.5)
    assert factor(199) == pytest.approx(6.1684e-5, rel=1e-3)
    assert factor(200) == pytest.approx(0.0)


@pytest.mark.parametrize("decay", [0.1, 0.2])
def test_step_decays_at_60_and_80_percent(decay: float) -> None:
    factor = round_factor("step", num_rounds=200, decay=decay)

    assert [factor(r) for r in (0, 119)] == [1.0, 1.0]
    assert [factor(r) for r in (120, 159)] == [decay, decay]
    assert [factor(r) for r in (160, 199)] == pytest.approx([decay**2, decay**2])


@pytest.mark.parametrize("num_rounds", [5, 15, 35, 45, 115, 1000])
def test_step_milestones_are_exact_where_the_percentages_are(num_rounds: int) -> None:
    factor = round_factor("step", num_rounds=num_rounds, decay=0.5)
    values = [factor(r) for r in range(num_rounds)]

    assert values.index(0.5) == num_rounds * 3 // 5
    assert values.index(0.25) == num_rounds * 4 // 5


def test_constant_stays() -> None:
    factor = round_factor("constant", num_rounds=3, decay=0.1)
    assert [factor(r) for r in (0, 2, 100)] == [1.0, 1.0, 1.0]


def test_published_client_schedule_swings_with_a_period_of_twice_the_rounds_in_steps() -> None:
    factor = published_client_factor(200)

    assert [factor(step) for step in (0, 400, 800, 40_000)] == pytest.approx([1.0] * 4)
    assert [factor(step) for step in (200, 600, 39_800)] == pytest.approx([0.0] * 3)
    assert [factor(step) for step in (100, 300, 500)] == pytest.approx([0.5] * 3)


def learning_rates(num_steps: int, **changes: Any) -> list[tuple[float, ...]]:
    """Return the groups' learning rates at each step, as the module would set them."""
    settings = OptimizerSettings(
        server_lr=0.06,
        client_lr=0.03,
        momentum=0.9,
        weight_decay=0.0,
        schedule="cosine",
        client_schedule="rounds",
        step_decay_server=0.1,
        step_decay_client=0.2,
    )._replace(**changes)
    federation = make_federation(
        make_split(), num_clients=1, pool_size=1, frozen=settings.client_lr == 0
    )
    module = MocoSFL(federation, settings, num_rounds=10, steps_per_round=5, config={})
    configured = module.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(num_steps):
        rates.append(tuple(group["lr"] for group in optimizer.param_groups))
        optimizer.step()
        scheduler.step()
    return rates


def test_both_sides_follow_the_rounds_and_stay_within_one() -> None:
    rates = learning_rates(50)

    assert rates[0] == rates[4] == (0.06, 0.03)
    assert rates[5] == rates[9] != rates[4]
    assert rates[25] == pytest.approx((0.03, 0.015))
    assert len(set(rates)) == 10


def test_published_client_schedule_moves_the_clients_alone() -> None:
    rates = learning_rates(50, client_schedule="published")

    assert [rates[step][0] for step in (0, 4, 25)] == pytest.approx([0.06, 0.06, 0.03])
    clients = [rates[step][1] for step in (0, 5, 10, 15, 20, 30, 40)]
    assert clients == pytest.approx([0.03, 0.015, 0.0, 0.015, 0.03, 0.0, 0.03])


def test_step_schedule_decays_each_side_by_its_own_factor() -> None:
    rates = learning_rates(50, schedule="step")

    assert rates[29] == (0.06, 0.03)
    assert rates[30] == pytest.approx((0.006, 0.006))
    assert rates[40] == pytest.approx((0.0006, 0.0012))


def test_frozen_heads_leave_one_schedule() -> None:
    assert learning_rates(26, client_lr=0.0)[25] == pytest.approx((0.03,))
