"""Sweeps: their names, what their jobs do, and whole sweeps in processes of their own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mocosfl.cli.sweep import Outcome, Result, name_sweep, run_job
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_metrics
from mocosfl.training import run as training
from mocosfl.training.callbacks.alarm import Alarm
from tests.support.checkpoints import assert_same_results, read
from tests.support.configurations import QUICK, Compose, composed_with_hydra
from tests.support.paths import ROOT

TRAIN = ROOT / "train.py"


# ---- names


@pytest.mark.parametrize(
    ("given", "added"),
    [
        (["-m", "experiment=table3", "seed=1,2"], ["sweep_name=sweep_table3"]),
        (["--multirun", "experiment=table3,methods"], ["sweep_name=sweep_table3_methods"]),
        (["-m", "experiment='a','b'"], ["sweep_name=sweep_a_b"]),
        (["-m", "experiment=none"], []),
        (["-m", "seed=1,2"], []),
        (["-m", "experiment=table3", "sweep_name=mine"], []),
        (["experiment=table3"], []),
    ],
    ids=str,
)
def test_sweep_is_named_after_its_experiment_unless_named(given: list[str], added: list[str]):
    assert name_sweep(given) == [*given, *added]


@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        ("sweep_name=a,b", "give it one name"),
        ("output_dir=a,b", "give one"),
        ("resume=a", "leave this out"),
        ("run_dir=a", "a folder of its own"),
    ],
)
def test_sweep_whose_jobs_would_share_or_scatter_folders_is_refused(argument: str, rule: str):
    with pytest.raises(ValueError, match=f"{argument}: .*{rule}"):
        name_sweep(["-m", "seed=1,2", argument])
    assert name_sweep([argument]) == [argument]  # a single run may


# ---- a job


def files_in(folder: RunFolder) -> dict[Path, int]:
    """Return what is in a folder, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}


def test_run_tells_that_it_has_finished(quick_run: RunFolder):
    finished = OmegaConf.load(quick_run.finished)
    assert finished["step"] == 21
    assert 0 < finished["seconds"] < 300


def test_finished_job_is_skipped_untouched(compose_quick: Compose, run_copy: RunFolder):
    before = files_in(run_copy)
    assert run_job(compose_quick([])) == Result(Outcome.skipped)
    assert files_in(run_copy) == before


def test_finished_is_looked_up_under_the_lock_too(compose_quick: Compose, run_copy: RunFolder):
    """Another process may come to the end between the first look and the lock."""
    assert training.train_unless_finished(compose_quick([]), run_copy) is None


def test_job_that_is_interrupted_ends_the_sweep_and_goes_on_later_as_if_it_never_was(
    compose_quick: Compose, quick_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(callback: Any, trainer: Any, *args: Any) -> None:
        if trainer.global_step == 9:
            raise KeyboardInterrupt

    folder, handler = RunFolder(tmp_path / "run"), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Alarm, "on_train_batch_end", interrupt)
        with pytest.raises(SystemExit):  # what Lightning makes of it
            run_job(compose_quick([]))
    signal.signal(signal.SIGINT, handler)  # Lightning lets it be ignored from then on
    assert not folder.failed.exists()
    assert not folder.finished.exists()
    assert read(folder.last)["global_step"] == 8  # a checkpoint every 2 steps
    assert run_job(compose_quick([])) == Result(Outcome.finished)
    assert_same_results(folder, quick_run)


@pytest.mark.parametrize("left", [["config.yaml"], [".config.yaml.partial"]], ids=str)
def test_job_killed_before_its_first_checkpoint_starts_anew(
    compose_quick: Compose, quick_run: RunFolder, tmp_path: Path, left: list[str]
):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    for name in left:
        shutil.copy(quick_run.config, folder.path / name)
    assert run_job(compose_quick([])) == Result(Outcome.finished)
    assert_same_results(folder, quick_run)


def test_job_leaves_a_folder_alone_that_another_process_works_in(
    compose_quick: Compose, tmp_path: Path
):
    with RunFolder(tmp_path / "run").locked():
        assert run_job(compose_quick([])) == Result(Outcome.elsewhere)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_job_refused_before_it_began_says_why_in_its_folder(
    compose_quick: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    result = run_job(compose_quick(["moco.queue_length=23"]))
    text = RunFolder(tmp_path / "run").failed.read_text()
    assert text.startswith("moco.queue_length=23: shorter than ")
    assert result == Result(Outcome.failed, text.partition("\n")[0])
    assert "Traceback" not in text
    assert text in capsys.readouterr().err


def test_unexpected_failure_is_kept_with_its_traceback_until_the_next_start(
    compose_quick: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*args: Any) -> None:
        raise RuntimeError("no such luck")

    folder = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("mocosfl.training.inputs.make_plan", fail)
        failure = Result(Outcome.failed, "RuntimeError: no such luck")
        assert run_job(compose_quick([])) == failure
    lines = folder.failed.read_text().splitlines()
    assert lines[0] == "RuntimeError: no such luck"
    assert "Traceback (most recent call last):" in lines
    assert run_job(compose_quick([])) == Result(Outcome.finished)
    assert not folder.failed.exists()


def test_job_that_went_on_with_other_processes_is_still_its_sweeps(
    compose_quick: Compose, run_copy: RunFolder
):
    recorded = run_copy.load_config()
    recorded.trainer.devices = 2
    run_copy.save_config(recorded)
    assert run_job(compose_quick([])) == Result(Outcome.skipped)


def test_job_stays_out_of_a_folder_with_other_settings(
    compose_quick: Compose, run_copy: RunFolder, capsys: pytest.CaptureFixture[str]
):
    before = files_in(run_copy)
    outcome, reason = run_job(compose_quick(["seed=5"]))
    assert outcome is Outcome.failed
    assert "holds a run with other settings" in reason
    assert reason in capsys.readouterr().err
    assert files_in(run_copy) == before


def test_job_stays_out_of_a_folder_whose_configuration_it_cannot_read(
    compose_quick: Compose, run_copy: RunFolder
):
    run_copy.config.write_text("of_another_version: 1\n")
    before = files_in(run_copy)
    outcome, reason = run_job(compose_quick([]))
    assert outcome is Outcome.failed
    assert "not a configuration of this version" in reason
    assert files_in(run_copy) == before


def test_failed_job_that_is_resumed_by_hand_is_failed_no_more(
    compose_quick: Compose, quick_run: RunFolder, tmp_path: Path
):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    shutil.copy(quick_run.config, folder.config)
    folder.failed.write_text("RuntimeError: no such luck\n")
    training.train(compose_quick([]), folder, resume=True)
    assert folder.finished.is_file()
    assert not folder.failed.exists()


def test_start_that_is_refused_leaves_the_reason_of_the_failure_before_it(
    compose_quick: Compose, run_copy: RunFolder
):
    run_copy.failed.write_text("RuntimeError: no such luck\n")
    with pytest.raises(ValueError, match="holds a run already"):
        training.train(compose_quick([]), run_copy, resume=False)
    assert run_copy.failed.read_text() == "RuntimeError: no such luck\n"


# ---- as processes of their own


# Processes of submitit import the package as it is installed, which may be another checkout.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TRAIN.parent)}


def start(
    folder: Path, data_dir: Path, *overrides: str, output: int = subprocess.DEVNULL
) -> "subprocess.Popen[str]":
    """Start a sweep of quick runs into `<folder>/runs/sweep`."""
    folder.mkdir(exist_ok=True)
    arguments = ["-m", f"data_dir={data_dir}", "output_dir=runs", *QUICK, *overrides]
    return subprocess.Popen(
        [sys.executable, str(TRAIN), *arguments], cwd=folder, env=ENVIRONMENT, text=True,
        stdin=subprocess.DEVNULL, stdout=output, stderr=output,
    )  # fmt: skip


def outcome_of(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def runs_in(folder: Path) -> list[RunFolder]:
    return [RunFolder(path.parent) for path in sorted(folder.glob("*/config.yaml"))]


@pytest.mark.slow
def test_sweep_killed_twice_does_every_job_once_and_ends_as_if_it_never_was(
    data_dir: Path, tmp_path: Path
):
    jobs = ["seed=1,2,3"]
    assert start(tmp_path / "whole", data_dir, *jobs).wait(240) == 0
    sweep = tmp_path / "killed" / "runs" / "sweep"
    done: dict[RunFolder, int] = {}
    for num_finished in (1, 2):  # in the middle of the second job, then of the third
        process = start(tmp_path / "killed", data_dir, *jobs)
        while process.poll() is None and not _is_in_job(sweep, num_finished):
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        finished = [run for run in runs_in(sweep) if run.finished.exists()]
        assert len(finished) == num_finished
        done.update({run: run.last.stat().st_mtime_ns for run in finished if run not in done})
    last = start(tmp_path / "killed", data_dir, *jobs, output=subprocess.PIPE)
    code, out, err = outcome_of(last)
    assert code == 0, err
    assert "1 finished, 2 skipped, 0 failed" in out
    runs = runs_in(sweep)
    assert len(runs) == 3
    for run, whole in zip(runs, runs_in(tmp_path / "whole" / "runs" / "sweep"), strict=True):
        assert run.path.name == whole.path.name
        assert [row["step"] for row in read_metrics(run.metrics)] == [str(n) for n in range(21)]
        assert_same_results(run, whole)
    # What was finished before a kill was not written again.
    assert {run: run.last.stat().st_mtime_ns for run in done} == done


def _is_in_job(sweep: Path, num_finished: int) -> bool:
    """Return whether so many jobs have finished and the next is behind its first checkpoint."""
    runs = runs_in(sweep)
    begun = [run for run in runs if not run.finished.exists() and run.last.exists()]
    return len(runs) - len(begun) == num_finished and any(
        len(read_metrics(run.metrics)) > 5 for run in begun
    )


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_sweep_in_other_processes_trains_skips_and_names_its_failures(
    data_dir: Path, tmp_path: Path, launcher: str
):
    jobs = [f"launcher={launcher}", "moco.queue_length=23,400,401"]
    code, out, err = outcome_of(start(tmp_path, data_dir, *jobs, output=subprocess.PIPE))
    assert code == 1, err
    assert "2 finished, 0 skipped, 1 failed" in out
    sweep = tmp_path / "runs" / "sweep"
    (failed,) = sweep.glob("*/failed.txt")
    assert f"mocosfl: failed: {failed.parent}: moco.queue_length=23: shorter" in err
    assert "Traceback" not in err
    runs = runs_in(sweep)
    assert [len(read_metrics(run.metrics)) for run in runs] == [21, 21]
    for run in runs:
        assert (run.path / "train.log").read_text()
        assert run.load_config().run_dir == str(run.path)
    if launcher == "joblib":  # the other takes the same way, and its processes start slowly
        code, out, err = outcome_of(start(tmp_path, data_dir, *jobs, output=subprocess.PIPE))
        assert code == 1, err
        assert "0 finished, 2 skipped, 1 failed" in out


def test_slurm_is_asked_for_what_the_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import submitit
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext

    (tmp_path / "srun").write_text("#!/bin/sh\n")  # what submitit looks for on the PATH
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    scripts: list[str] = []

    def submit(executor: Any, *jobs: Any) -> list[Any]:
        scripts.append(executor._executor._make_submission_file_text("python x", "id"))
        return []

    monkeypatch.setattr(submitit.AutoExecutor, "map_array", submit)
    overrides = ["launcher=submitit", "hydra.launcher.partition=big", f"output_dir={tmp_path}"]
    config = composed_with_hydra(overrides)
    config.hydra.job.name = "train"
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(config_loader=None, callbacks=None),  # type: ignore[arg-type]
        task_function=lambda config: None,
        config=config,
    )
    launcher.launch([["seed=1"]], 0)
    lines = scripts[0].splitlines()
    for line in ("partition=big", "time=1440", "gpus-per-node=1", "cpus-per-task=8", "mem=32GB"):
        assert f"#SBATCH --{line}" in lines
    assert "#SBATCH --signal=USR2@120" in lines
