"""Two processes against one: the same losses, weights, queue and checkpoints.

The processes are real ones on this machine, with gloo. The fast suite has the first equality alone.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from mocosfl.federation.federation import Federation
from mocosfl.federation.ranks import Ranks
from mocosfl.federation.server import ServerOutput, SmashedStep
from mocosfl.runs.folder import RunFolder
from mocosfl.system.errors import TrainingStopped
from mocosfl.training.callbacks.checkpoints import LastCheckpoint
from mocosfl.training.callbacks.step_log import StepLog
from mocosfl.training.collapse import read_collapses
from mocosfl.training.processes import further_rank
from mocosfl.training.processes.workers import RankJob, WorkerFailed
from mocosfl.training.run import train
from tests.support.checkpoints import assert_same_results, break_off, curves, read
from tests.support.configurations import Compose
from tests.support.paths import ROOT
from tests.support.running_processes import running

EXACT = ["trainer.precision=fp64"]
UNEQUAL = [
    "heterogeneity=rich_poor",
    "heterogeneity.rich_batch_factor=3",
    "clients.num_rounds=4",
]
# So few clients that all of one process miss some steps.
MISSING = ["clients.participation=0.03", "clients.dropout_probability=0.7"]
VARIANTS = {
    "unequal clients, drop-outs, private queues": [
        *UNEQUAL, *MISSING, "moco.feature_sharing=false", "moco.queue_length=1300"
    ],
    "monacosfl, odd pool": ["method=monacosfl", "clients.participation=0.07"],
    "supervised, drop-outs": ["method=sfl_supervised", *MISSING],
    "whole networks, drop-outs": ["method=fl_moco", *MISSING],
    "averaged by images": [*UNEQUAL, "averaging=by_images"],
    "divergence-aware, drop-outs": [
        *UNEQUAL, "averaging=divergence_aware", "clients.dropout_probability=0.2"
    ],
    "stateless": ["clients.client_state=stateless"],
    "frozen heads, one-sided": ["optimizer.client_lr=0", "moco.symmetric=none"],
}  # fmt: skip


def assert_close_results(one: RunFolder, other: RunFolder) -> None:
    """Compare curves, weights, optimizer, queue and bank of two runs, up to rounding."""
    for row, counterpart in zip(curves(one), curves(other), strict=True):
        assert list(row) == list(counterpart)
        for name, value in row.items():
            # Accuracies are means in fp32, whatever the precision.
            expected = pytest.approx(float(counterpart[name] or -1), rel=1e-8, abs=1e-7)
            assert float(value or -1) == expected, name
    mine, theirs = read(one.last), read(other.last)
    for part in ("state_dict", "optimizer_states", "callbacks", "loops", "lr_schedulers"):
        assert_close(mine[part], theirs[part])
    assert read(one.best)["global_step"] == read(other.best)["global_step"]


def assert_close(one: Any, other: Any) -> None:
    """Compare nested values, numbers up to rounding."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_close(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_close(mine, theirs)
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-9)
    else:
        assert one == other


@pytest.fixture
def train_with(compose_quick: Compose, tmp_path: Path) -> Callable[..., RunFolder]:
    """Train the quick run with a number of processes, into a folder of that name."""

    def trained(devices: int, *overrides: str, name: str | None = None) -> RunFolder:
        folder = RunFolder(tmp_path / (name or f"with_{devices}"))
        config = compose_quick([*EXACT, f"trainer.devices={devices}", *overrides])
        train(config, folder, resume=False)
        return folder

    return trained


def test_two_processes_end_as_one(train_with: Callable[..., RunFolder]):
    # A round and a bit: with syncs, a change of the pool, and checkpoints.
    one, two = (train_with(devices, "trainer.max_steps=9") for devices in (1, 2))
    assert_close_results(one, two)
    assert read(two.last)["config"]["trainer"]["devices"] == 2
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_end_as_one_in_each_variant(
    variant: str, train_with: Callable[..., RunFolder]
):
    overrides = [*VARIANTS[variant], "trainer.max_steps=16"]
    assert_close_results(*(train_with(devices, *overrides) for devices in (1, 2)))


@pytest.mark.slow
def test_three_processes_end_as_one(train_with: Callable[..., RunFolder]):
    overrides = ["clients.participation=0.05", "trainer.max_steps=9"]
    assert_close_results(*(train_with(devices, *overrides) for devices in (1, 3)))


# ---- checkpoints


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_run_goes_on_with_another_number_of_processes(
    first: int,
    second: int,
    train_with: Callable[..., RunFolder],
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    whole = train_with(1, name="whole")
    with monkeypatch.context() as patch:
        break_off(patch, 9, behind=StepLog)
        with pytest.raises(SystemExit, match="broken off"):
            train_with(first, name="run")
    folder = RunFolder(tmp_path / "run")
    assert read(folder.last)["global_step"] == 8
    command = ["train.py", f"resume={folder.path}", f"trainer.devices={second}"]
    monkeypatch.setattr(sys, "argv", command)
    GlobalHydra.instance().clear()
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    assert_close_results(folder, whole)
    assert folder.load_config().trainer.devices == second
    assert read(folder.last)["config"]["trainer"]["devices"] == second


@pytest.mark.slow
def test_run_of_two_processes_broken_off_ends_as_if_it_never_was(
    train_with: Callable[..., RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    missing = "clients.dropout_probability=0.5"
    whole = train_with(2, missing, name="whole")
    for step, behind in ((9, StepLog), (16, LastCheckpoint)):
        with monkeypatch.context() as patch:
            break_off(patch, step, behind=behind)
            with pytest.raises(SystemExit, match="broken off"):
                if step == 9:
                    train_with(2, missing, name="run")
                else:
                    folder = RunFolder(tmp_path / "run")
                    train(folder.load_config(), folder, resume=True)
        assert multiprocessing.active_children() == []
    folder = RunFolder(tmp_path / "run")
    train(folder.load_config(), folder, resume=True)
    assert_same_results(folder, whole)


def test_clock_of_several_processes_is_asked_at_some_steps_alone(monkeypatch: pytest.MonkeyPatch):
    clock, asked = [0.0], []
    monkeypatch.setattr("mocosfl.training.callbacks.checkpoints.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(Ranks, "decided_by_first", lambda _, late: asked.append(late) or late)
    saving = LastCheckpoint(Path("x"), every_steps=100, every_minutes=1, ask_every_steps=10)
    clock[0] = 61.0
    assert [step for step in range(1, 31) if saving._late(step, Ranks(0, 2))] == [10, 20, 30]
    assert asked == [True] * 3
    assert saving._late(1, Ranks())


# ---- failures


def fail_at_third_step(job: RankJob, ready: Callable[[], None]) -> None:
    """Train as a further process that breaks."""
    good, calls = Federation.learn, []

    def breaking(self: Federation, step: SmashedStep) -> ServerOutput:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("the third step was too much")
        return good(self, step)

    Federation.learn = breaking  # type: ignore[method-assign]
    further_rank.train_rank(job, ready)


@pytest.mark.slow
def test_failure_of_a_process_in_training_ends_the_run_with_its_words(
    train_with: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(further_rank, "train_rank", fail_at_third_step)
    with pytest.raises(WorkerFailed, match=r"(?s)process 1 .*the third step was too much"):
        train_with(2)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_collapse_ends_all_processes_alike(train_with: Callable[..., RunFolder]):
    everything = "callbacks.collapse_loss_margin=100"
    with pytest.raises(TrainingStopped, match="has collapsed"):
        train_with(2, everything, "callbacks.collapse_window_steps=4")
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_run_from_an_expert_goes_back_from_a_collapse_with_all_processes(
    train_with: Callable[..., RunFolder], tmp_path: Path
):
    unsuspicious = ["callbacks.collapse_loss_margin=0", "callbacks.collapse_min_std=0"]
    expert = train_with(1, "trainer.max_steps=3", *unsuspicious, name="expert")
    start = ["taressfl=on", f"taressfl.expert={expert.last}", "trainer.max_steps=9"]
    one, two = (train_with(devices, *start) for devices in (1, 2))
    assert_close_results(one, two)
    looks_collapsed = [
        "callbacks.collapse_loss_margin=100",
        "callbacks.collapse_window_steps=4",
        "taressfl.max_collapses=1",
        "taressfl.collapse_lr_factor=0.5",
    ]
    with pytest.raises(TrainingStopped, match="has collapsed"):
        train_with(2, *start, *looks_collapsed, name="collapsed")
    assert len(read_collapses(RunFolder(tmp_path / "collapsed"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [True, False])
def test_sigterm_ends_all_processes_in_training(
    compose_quick: Compose, tmp_path: Path, to_all: bool
):
    """A scheduler sends SIGTERM to the first process, or to all."""
    config = compose_quick(["trainer.devices=2", "clients.num_rounds=100000"])
    config.run_dir = str(tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    OmegaConf.save(OmegaConf.structured(config), tmp_path / "config.yaml")
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from omegaconf import OmegaConf\n"
        "from mocosfl.config.hydra_setup import Config\n"
        "from mocosfl.runs.folder import RunFolder\n"
        "from mocosfl.training.run import train\n"
        "if __name__ == '__main__':\n"
        "    schema = OmegaConf.structured(Config)\n"
        "    config = OmegaConf.merge(schema, OmegaConf.load(sys.argv[1]))\n"
        "    train(config, RunFolder(Path(config.run_dir)), resume=False)\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "config.yaml")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 120
        while not folder.last.is_file():
            assert first.poll() is None and time.monotonic() < until, "no step was taken"
            time.sleep(0.1)
        (further,) = children(first.pid)
        os.kill(first.pid, signal.SIGTERM)
        if to_all:
            os.kill(further, signal.SIGTERM)
        first.wait(timeout=20)
        until = time.monotonic() + 20
        while running(further):
            assert time.monotonic() < until, "the further process goes on"
            time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Return the processes that train beside a first one; not multiprocessing's own helper."""
    found = []
    for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes():
            found.append(int(number))
    return found
