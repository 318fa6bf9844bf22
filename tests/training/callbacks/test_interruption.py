"""Ctrl-C and SIGTERM: the step is finished and saved, and the run goes on as if it never was."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mocosfl.cli.sweep import Outcome, Result, run_job
from mocosfl.config.choices import TaressflMode
from mocosfl.config.schema import Config
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves
from mocosfl.runs.resuming import how_to_go_on
from mocosfl.training.callbacks.alarm import Alarm
from mocosfl.training.run import train
from tests.support.checkpoints import assert_same_results, read
from tests.support.configurations import Compose

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


def interrupt(
    config: Config,
    folder: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    *numbers: signal.Signals,
) -> None:
    """Train until signals end the run."""
    with monkeypatch.context() as patch:
        signals_at(patch, step, *numbers)
        with pytest.raises(SystemExit) as stopped:
            train(config, folder, resume=False)
    assert stopped.value.code == 128 + numbers[-1]


@pytest.fixture(autouse=True)
def signals_of_a_terminal() -> Iterator[None]:
    """Hear signals even where the suite runs in the background of a script."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def config(compose_quick: Compose) -> Config:
    return compose_quick([])


BOTH = pytest.mark.parametrize(
    "number",
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
    ids=lambda number: number.name,
)
# What has more state than the weights.
VARIANTS = {
    "saving": ["saving=by_loss", "saving.warmup_rounds=1", "saving.loss_threshold=100"],
    "online": ["taressfl=online", "taressfl.decoder=plain", "clients.dropout_probability=0.3"],
}


@BOTH
def test_interrupted_run_is_saved_behind_its_step_and_ends_as_if_it_never_was(
    number: signal.Signals,
    config: Config,
    quick_run: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    folder = RunFolder(tmp_path / "run")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with caplog.at_level(logging.INFO):
        interrupt(config, folder, monkeypatch, STEP, number)
    assert f"stopped at step {STEP}" in caplog.text
    assert f"saved is step {STEP}; go on with: python train.py resume={folder.path}" in caplog.text
    assert read(folder.last)["global_step"] == STEP
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    train(config, folder, resume=True)
    assert_same_results(folder, quick_run)
    images = read_curves(folder.metrics)["progress/images_seen"]
    assert images == read_curves(quick_run.metrics)["progress/images_seen"]


@BOTH
def test_run_stopped_at_its_last_step_has_its_end_to_do(
    number: signal.Signals,
    config: Config,
    quick_run: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    folder = RunFolder(tmp_path / "run")
    interrupt(config, folder, monkeypatch, 21, number)
    assert not folder.finished.exists()
    train(config, folder, resume=True)
    assert folder.finished.is_file()
    assert folder.overhead.is_file()
    assert_same_results(folder, quick_run)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_interrupted_run_with_more_state_ends_as_if_it_never_was(
    variant: str, compose_quick: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = compose_quick(VARIANTS[variant])
    whole, folder = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    train(config, whole, resume=False)
    interrupt(config, folder, monkeypatch, 17, signal.SIGINT)  # in the third round: mode C
    train(config, folder, resume=True)
    assert_same_results(folder, whole)


def test_second_ctrl_c_stops_at_once_and_says_what_is_saved(
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    folder, handler = RunFolder(tmp_path / "run"), signal.getsignal(signal.SIGINT)
    with caplog.at_level(logging.INFO):
        interrupt(config, folder, monkeypatch, STEP, signal.SIGINT, signal.SIGINT)
    assert read(folder.last)["global_step"] == STEP - 1
    assert f"saved is step {STEP - 1}; go on with: " in caplog.text
    assert signal.getsignal(signal.SIGINT) is handler


def test_signal_that_is_ignored_stays_ignored(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signals_at(monkeypatch, STEP, signal.SIGINT)
    train(config, RunFolder(tmp_path / "run"), resume=False)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


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


def test_words_name_the_program_that_goes_on(compose_quick: Compose, tmp_path: Path):
    config, folder = compose_quick([]), RunFolder(tmp_path / "a run")
    assert how_to_go_on(config, folder) == (
        f"nothing is saved, it starts again; go on with: python train.py resume='{folder.path}'"
    )
    OmegaConf.update(config, "taressfl.mode", TaressflMode.expert)
    assert "python -m mocosfl.expert resume=" in how_to_go_on(config, folder)
