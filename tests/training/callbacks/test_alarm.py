"""The alarm: a collapse is noticed after its window and not before."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mocosfl.federation.server import ServerOutput
from mocosfl.system.errors import TrainingStopped
from mocosfl.training.callbacks.alarm import Alarm
from mocosfl.training.module import MocoSFL
from mocosfl.training.step_record import StepRecord


def look(alarm: Alarm, module: MocoSFL, step: int, *, loss: float, std: float, end: int = 99):
    """Show a step to the alarm."""
    values = (torch.tensor(value) for value in (loss, 0.5, std))
    module.record = StepRecord(ServerOutput(*values), 1, {})
    trainer: Any = SimpleNamespace(global_step=step, max_steps=end)
    alarm.on_train_batch_end(trainer, module, None, None, step - 1)


def make_alarm(window_steps: int = 20) -> Alarm:
    return Alarm(every_steps=5, window_steps=window_steps, loss_margin=0.01, min_std=0.01)


HEALTHY = {"loss": 8.0, "std": 0.5}
COLLAPSED = [{"loss": 8.0, "std": 0.001}, {"loss": 2 * math.log(401) + 0.015, "std": 0.5}]


def test_uniform_loss_is_that_of_embeddings_that_tell_nothing(module: MocoSFL):
    assert module.uniform_loss == pytest.approx(2 * math.log(401))  # both sides, 400 keys


@pytest.mark.parametrize("collapsed", COLLAPSED, ids=["no spread", "stuck loss"])
def test_collapse_stops_after_the_window_and_not_before(
    module: MocoSFL, collapsed: dict[str, float]
):
    alarm = make_alarm()
    look(alarm, module, 5, **HEALTHY)
    for step in range(10, 30):
        look(alarm, module, step, **collapsed)
    with pytest.raises(TrainingStopped, match=r"collapsed: for 20 .*window_steps=0"):
        look(alarm, module, 30, **collapsed)


def test_one_healthy_step_calms_the_alarm(module: MocoSFL):
    alarm = make_alarm()
    for step in range(5, 25, 5):
        look(alarm, module, step, **COLLAPSED[0])
    look(alarm, module, 25, **HEALTHY)
    for step in range(30, 50, 5):
        look(alarm, module, step, **COLLAPSED[0])
    with pytest.raises(TrainingStopped):
        look(alarm, module, 50, **COLLAPSED[0])


def test_loss_beyond_the_margin_is_not_stuck(module: MocoSFL):
    alarm = make_alarm(window_steps=5)
    for step in (5, 10, 15):
        look(alarm, module, step, loss=2 * math.log(401) + 0.021, std=0.5)


def test_window_of_zero_turns_the_collapse_alarm_off_and_no_other(module: MocoSFL):
    alarm = make_alarm(window_steps=0)
    for step in range(5, 500, 5):
        look(alarm, module, step, **COLLAPSED[0])
    with pytest.raises(TrainingStopped, match="loss is inf"):
        look(alarm, module, 500, loss=math.inf, std=0.5)


def test_alarm_looks_at_the_last_step_of_the_run(module: MocoSFL):
    alarm = make_alarm()
    look(alarm, module, 7, loss=math.nan, std=0.5)
    with pytest.raises(TrainingStopped):
        look(alarm, module, 7, loss=math.nan, std=0.5, end=7)


def test_alarm_goes_on_counting_after_a_resume(module: MocoSFL):
    before, after = make_alarm(), make_alarm()
    look(before, module, 5, **COLLAPSED[0])
    after.load_state_dict(before.state_dict())
    look(after, module, 20, **COLLAPSED[0])
    with pytest.raises(TrainingStopped, match="for 20 steps"):
        look(after, module, 25, **COLLAPSED[0])
