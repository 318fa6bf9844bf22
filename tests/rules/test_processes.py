"""What several processes can't do is refused with a way out."""

from typing import Any

import numpy as np
import pytest
import torch

from mocosfl.overhead.plan import make_plan
from mocosfl.overhead.plan_in_words import describe_plan
from mocosfl.rules.machine import check_machine
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


def test_more_processes_than_gpus_are_refused(compose: Compose, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = compose(["clients=100", "trainer=ddp"])
    with pytest.raises(ValueError) as error:
        check_machine(config)
    assert str(error.value).splitlines() == [
        "trainer.devices=2: a process needs a GPU of its own, and there are 1; use at most that "
        "many, or trainer.accelerator=cpu"
    ]
    config.trainer.accelerator = "cpu"
    check_machine(config)


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


def test_plan_tells_the_clients_of_each_process(compose: Compose):
    config = compose(["clients=5", "trainer.devices=2"])
    text = describe_plan(config, make_plan(config, np.full(5, 100)))
    assert "processes        2, each with 2 or 3 clients of the pool" in text
    config.trainer.devices = 1
    assert "processes" not in describe_plan(config, make_plan(config, np.full(5, 100)))
