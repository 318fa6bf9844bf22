"""What several processes can't do is refused with a way out."""

from typing import Any

import pytest

from mocosfl.rules.validate import validate
from tests.support.configurations import Compose, changed
from tests.support.problems import problems

RULES: list[tuple[list[str], dict[str, Any], str]] = [
    (
        [],
        {"trainer.devices": -1},
        "trainer.devices=-1: must be at least 1, the number of processes",
    ),
    (
        ["clients=5"],
        {},
        "trainer.devices=6: the pool of a round has 5 clients, and each process needs one; use at "
        "most that many processes, or a larger clients.participation",
    ),
    (
        ["saving=by_loss"],
        {},
        "trainer.devices=6: saving.enabled=true is for one process; set trainer.devices=1, or "
        "saving=off",
    ),
    (
        ["taressfl=online"],
        {},
        "trainer.devices=6: the attackers of taressfl.mode=online live in one process; set "
        "trainer.devices=1",
    ),
    (
        ["moco=large_v2"],
        {},
        "trainer.devices=6: moco.projector_batch_norm=true would take each process's rows for the "
        "whole batch; set trainer.devices=1, or moco.projector_batch_norm=false",
    ),
]


@pytest.mark.parametrize(("overrides", "values", "expected"), RULES)
def test_each_rule_is_told(
    overrides: list[str], values: dict[str, Any], expected: str, compose: Compose
):
    config = compose(["clients=100", "trainer.accelerator=cpu", "trainer.devices=6", *overrides])
    assert expected in problems(changed(config, values))


def test_two_processes_are_a_choice_of_the_trainer(compose: Compose):
    config = compose(["clients=100", "trainer=ddp", "trainer.accelerator=cpu"])
    assert config.trainer.devices == 2
    validate(config)


@pytest.mark.parametrize("method", ["fl_moco", "monacosfl", "sfl_supervised"])
def test_federated_methods_may_use_several_processes(method: str, compose: Compose):
    validate(compose(["clients=20", f"method={method}", "trainer=ddp", "trainer.accelerator=cpu"]))


def test_clients_frozen_at_an_expert_s_head_may_be_spread_over_processes(compose: Compose):
    overrides = ["clients=100", "taressfl=on", "taressfl.expert=some/run", "trainer=ddp"]
    validate(compose([*overrides, "trainer.accelerator=cpu"]))
