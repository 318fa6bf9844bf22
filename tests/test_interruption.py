"""Ctrl-C and SIGTERM: the step is finished and saved, and the run goes on as if it never was."""

import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from checkpoints import assert_same_results, read
from conftest import Compose

from mocosfl.alarm import Alarm
from mocosfl.config import Config
from mocosfl.metrics_log import read_curves
from mocosfl.run_folder import RunFolder
from mocosfl.sweeps import Outcome, Result, run_job
from mocosfl.training import train

STEP = 9  # no checkpoint is due there: one comes every 2 steps


def signals_at(monkeypatch: pytest.MonkeyPatch, step: int, *numbers: signal.Signals) -> None:
    """Send this process signals in the middle of a step's callbacks."""
    look = Alarm.on_train_batch_end

    def send(callback: Any, trainer: Any, *args: Any) -> None:
        look(callback, trainer, *args)
        if trainer.global_step == step:
            for number in numbers:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(Alarm, "on_train_batch_end", send)


@pytest.fixture
def config(compose_quick: Compose) -> Config:
    return compose_quick([])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_interrupted_run_is_saved_behind_its_step_and_ends_as_if_it_never_was(
    number: signal.Signals,
    config: Config,
    quick_run: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    folder, handler = RunFolder(tmp_path / "run"), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        signals_at(patch, STEP, number)
        with pytest.raises(SystemExit) as stopped:
            train(config, folder, resume=False)
    assert stopped.value.code == 128 + number
    assert f"stopped behind step {STEP}; go on with: python train.py resume=" in caplog.text
    assert read(folder.last)["global_step"] == STEP
    assert signal.getsignal(signal.SIGINT) is handler
    train(config, folder, resume=True)
    assert_same_results(folder, quick_run)
    images = read_curves(folder.metrics)["progress/images_seen"]
    assert images == read_curves(quick_run.metrics)["progress/images_seen"]


def test_second_ctrl_c_stops_at_once(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, handler = RunFolder(tmp_path / "run"), signal.getsignal(signal.SIGINT)
    signals_at(monkeypatch, STEP, signal.SIGINT, signal.SIGINT)
    with pytest.raises(SystemExit):  # what Lightning makes of it
        train(config, folder, resume=False)
    assert read(folder.last)["global_step"] == STEP - 1
    assert signal.getsignal(signal.SIGINT) is handler


def test_request_at_the_last_step_comes_too_late_to_matter(
    config: Config, quick_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = RunFolder(tmp_path / "run")
    signals_at(monkeypatch, 21, signal.SIGINT)
    train(config, folder, resume=False)
    assert folder.finished.is_file()
    assert_same_results(folder, quick_run)


def test_sweep_ends_with_an_interrupted_job_and_goes_on_with_it(
    config: Config, quick_run: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    folder = RunFolder(Path(config.run_dir))
    with monkeypatch.context() as patch:
        signals_at(patch, STEP, signal.SIGINT)
        with pytest.raises(SystemExit):
            run_job(config)
    assert not folder.failed.exists()
    assert run_job(config) == Result(Outcome.finished)
    assert_same_results(folder, quick_run)
