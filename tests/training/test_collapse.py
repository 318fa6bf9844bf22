"""An expert that collapses goes back to its last good state with a smaller alpha, a few times."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mocosfl.config.schema import Config
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves
from mocosfl.system.errors import Collapsed
from mocosfl.training.callbacks.alarm import Alarm
from mocosfl.training.callbacks.step_log import StepLog
from mocosfl.training.collapse import go_back, read_collapses
from mocosfl.training.module import MocoSFL
from mocosfl.training.run import train
from tests.support.checkpoints import assert_same_results, break_off
from tests.support.configurations import ONLINE, Compose, changed


def test_retry_that_would_be_the_same_is_not_made(compose_expert: Compose, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    for overrides in (["taressfl.alpha=0"], ["taressfl.collapse_alpha_factor=1"]):
        assert not go_back(compose_expert(overrides), folder, 5)
    assert go_back(
        compose_expert(["taressfl.alpha=0", "taressfl.collapse_lr_factor=0.5"]), folder, 5
    )


def test_best_checkpoint_of_steps_taken_back_goes_with_them(
    compose_expert: Compose, tmp_path: Path
):
    folder = RunFolder(tmp_path / "run")
    train(compose_expert(["callbacks.knn_every_rounds=1"]), folder, resume=False)
    checkpoint = torch.load(folder.last, weights_only=True)
    checkpoint["global_step"] = 8  # as if the last good one were from before the best
    torch.save(checkpoint, folder.last)
    assert go_back(compose_expert([]), folder, 9)
    assert not folder.best.is_file()


def test_online_run_that_looks_collapsed_at_its_end_says_so(compose_quick: Compose, tmp_path: Path):
    more = ["callbacks.collapse_min_std=100", "taressfl.max_collapses=1", "trainer.max_steps=2"]
    with pytest.raises(Collapsed):
        train(compose_quick(["taressfl=online", *ONLINE, *more]), RunFolder(tmp_path / "run"),
              resume=False)  # fmt: skip


def collapse_at(step: int, *, while_alpha: float) -> Any:
    """Return an alarm that rings at a step as long as the regulariser is so strong."""
    look = Alarm.on_train_batch_end

    def ring(self: Alarm, trainer: Any, module: MocoSFL, *rest: Any) -> None:
        look(self, trainer, module, *rest)
        assert module.attackers is not None
        if trainer.global_step >= step and module.attackers.settings.alpha >= while_alpha:
            raise Collapsed("the network has collapsed", trainer.global_step)

    return ring


def test_collapse_goes_back_to_the_last_good_state_with_a_smaller_alpha(
    compose_expert: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    folder = RunFolder(tmp_path / "run")
    config = compose_expert(["taressfl.collapse_lr_factor=0.1"])
    monkeypatch.setattr(Alarm, "on_train_batch_end", collapse_at(5, while_alpha=1.5))
    module = train(config, folder, resume=False)
    assert [tuple(c) for c in read_collapses(folder)] == [(5, 3)]
    assert module.attackers is not None
    assert module.attackers.settings.alpha == 1.0
    assert "COLLAPSED at step 5: going back to step 3 (1 of 3 tries)" in caplog.text
    assert "went back from 1 collapses" in caplog.text  # said again at the end
    steps, rates = read_curves(folder.metrics)["lr/server"]
    assert steps == list(range(9))  # no step is logged twice
    assert rates == pytest.approx([0.06] * 3 + [0.006] * 6)
    curves = read_curves(folder.metrics)
    similarity, penalty = (curves[f"privacy/{n}"][1] for n in ("attacker_ssim", "penalty"))
    factors = [p / s for p, s in zip(penalty, similarity, strict=True)]
    assert factors == pytest.approx([2.0] * 3 + [1.0] * 6)


@pytest.mark.slow
def test_run_killed_after_a_collapse_goes_on_with_the_smaller_alpha(
    compose_expert: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, halves = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "halves")
    config = compose_expert(["taressfl.collapse_lr_factor=0.5"])
    with monkeypatch.context() as patch:
        patch.setattr(Alarm, "on_train_batch_end", collapse_at(5, while_alpha=1.5))
        train(config, whole, resume=False)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Alarm, "on_train_batch_end", collapse_at(5, while_alpha=1.5))
        break_off(patch, 7, behind=StepLog)  # not on the way to the collapse: that was at step 5
        train(config, halves, resume=False)
    module = train(config, halves, resume=True)
    assert module.attackers is not None
    assert module.attackers.settings.alpha == 1.0
    assert_same_results(whole, halves)


def test_second_collapse_from_the_same_state_begins_again(compose_expert: Compose, tmp_path: Path):
    folder, config = RunFolder(tmp_path / "run"), compose_expert([])
    train(changed(compose_expert([]), {"trainer.max_steps": 3}), folder, resume=False)
    assert go_back(config, folder, 5)
    assert folder.last.is_file()
    assert go_back(config, folder, 6)
    assert not folder.last.is_file()
    assert [tuple(c) for c in read_collapses(folder)] == [(5, 3), (6, 0)]


def test_expert_that_keeps_collapsing_ends_with_an_error(
    compose_expert: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = RunFolder(tmp_path / "run")
    monkeypatch.setattr(Alarm, "on_train_batch_end", collapse_at(2, while_alpha=0.0))
    with pytest.raises(Collapsed, match="the network has collapsed"):
        train(compose_expert(["taressfl.max_collapses=2"]), folder, resume=False)
    assert len(json.loads(folder.collapses.read_text())) == 2
    assert not folder.finished.is_file()


def test_expert_that_looks_collapsed_at_its_last_step_is_not_delivered(
    compose_expert: Compose, tmp_path: Path
):
    folder = RunFolder(tmp_path / "run")
    # No spread is enough for this alarm, so that each step looks collapsed.
    config: Config = compose_expert(["callbacks.collapse_min_std=100", "taressfl.max_collapses=1"])
    with pytest.raises(Collapsed, match="collapsed: for 8 steps"):
        train(config, folder, resume=False)
    assert not folder.last.is_file()  # nothing that looked collapsed was kept
    assert not folder.finished.is_file()
