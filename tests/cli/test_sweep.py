"""Sweeps: what their folders are called, what their jobs do, and what is said at the end."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from mocosfl.cli.sweep import Outcome, Result, name_sweep, run_job
from mocosfl.cli.sweep_record import Job, SweepRecord, failures, summary, told_at_end
from mocosfl.config.command_line import quote_choices
from mocosfl.config.hydra_setup import CONF
from mocosfl.config.identity import digest
from mocosfl.runs.folder import FolderBusy, RunFolder
from mocosfl.runs.metrics import read_metrics
from mocosfl.training import run as training
from mocosfl.training.callbacks.alarm import Alarm
from tests.support.checkpoints import assert_same_results, read
from tests.support.configurations import QUICK, Compose, changed

TRAIN = CONF.parent / "train.py"


# ---- names


def folder_of(*overrides: str) -> str:
    """Return the name of the folder of a job with these overrides."""
    with initialize_config_dir(str(CONF), version_base=None):
        config = hydra_compose("config", quote_choices(list(overrides)), return_hydra_config=True)
        return str(config.hydra.sweep.subdir)


def test_job_folder_says_the_settings_and_ends_with_their_hash():
    name = folder_of("clients=20", "split=cut2", "partition=shards")
    assert name.startswith("digits_mocosfl_shards_n20_cut2_")
    assert len(name.rpartition("_")[2]) == 8
    assert "_whole_" in folder_of("method=fl_moco")


def test_job_folder_depends_on_settings_alone():
    plain = folder_of("seed=1")
    assert folder_of("notes=x", "seed=1", "sweep_name=y", "output_dir=z", "logger=csv") == plain
    assert folder_of("launcher=joblib", "seed=1") == plain
    assert folder_of("seed=2") != plain
    assert folder_of("seed=1", "optimizer.server_lr=0.05") != plain


def test_cut_makes_no_difference_to_a_method_without_one():
    assert folder_of("method=fl_moco", "split=cut1") == folder_of("method=fl_moco", "split=cut2")


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset=image_folder"],  # its classes are for the user to give
        ["clients=published", "clients.num_clients=0"],  # refused by a resolver of ours
        ["split.cut_layer=null"],
    ],
    ids=str,
)
def test_job_that_cannot_be_has_a_folder_all_the_same(overrides: list[str]):
    assert folder_of(*overrides) != folder_of(*overrides, "seed=5")


def test_job_folder_stays_a_file_name_whatever_the_data_set_is_called():
    name = folder_of(f"dataset.name={'a/b' * 200}")
    assert len(os.fsencode(name)) < 255
    assert "/" not in name


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


@pytest.fixture
def finished_run(quick_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the quick run's folder, where `compose` has its runs."""
    shutil.copytree(quick_run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def files_in(folder: RunFolder) -> dict[Path, int]:
    """Return what is in a folder, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}


def test_run_tells_that_it_has_finished(quick_run: RunFolder):
    finished = OmegaConf.load(quick_run.finished)
    assert finished["step"] == 21
    assert 0 < finished["seconds"] < 300


def test_finished_job_is_skipped_untouched(compose_quick: Compose, finished_run: RunFolder):
    before = files_in(finished_run)
    assert run_job(compose_quick([])) == Result(Outcome.skipped)
    assert files_in(finished_run) == before


def test_finished_is_looked_up_under_the_lock_too(compose_quick: Compose, finished_run: RunFolder):
    """Another process may come to the end between the first look and the lock."""
    assert training.train_unless_finished(compose_quick([]), finished_run) is None


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
        patch.setattr(training, "make_plan", fail)
        failure = Result(Outcome.failed, "RuntimeError: no such luck")
        assert run_job(compose_quick([])) == failure
    lines = folder.failed.read_text().splitlines()
    assert lines[0] == "RuntimeError: no such luck"
    assert "Traceback (most recent call last):" in lines
    assert run_job(compose_quick([])) == Result(Outcome.finished)
    assert not folder.failed.exists()


def test_job_that_went_on_with_other_processes_is_still_its_sweeps(
    compose_quick: Compose, finished_run: RunFolder
):
    recorded = finished_run.load_config()
    recorded.trainer.devices = 2
    finished_run.save_config(recorded)
    assert run_job(compose_quick([])) == Result(Outcome.skipped)


def test_job_stays_out_of_a_folder_with_other_settings(
    compose_quick: Compose, finished_run: RunFolder, capsys: pytest.CaptureFixture[str]
):
    before = files_in(finished_run)
    outcome, reason = run_job(compose_quick(["seed=5"]))
    assert outcome is Outcome.failed
    assert "holds a run with other settings" in reason
    assert reason in capsys.readouterr().err
    assert files_in(finished_run) == before


def test_job_stays_out_of_a_folder_whose_configuration_it_cannot_read(
    compose_quick: Compose, finished_run: RunFolder
):
    finished_run.config.write_text("of_another_version: 1\n")
    before = files_in(finished_run)
    outcome, reason = run_job(compose_quick([]))
    assert outcome is Outcome.failed
    assert "not a configuration of this version" in reason
    assert files_in(finished_run) == before


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
    compose_quick: Compose, finished_run: RunFolder
):
    finished_run.failed.write_text("RuntimeError: no such luck\n")
    with pytest.raises(ValueError, match="holds a run already"):
        training.train(compose_quick([]), finished_run, resume=False)
    assert finished_run.failed.read_text() == "RuntimeError: no such luck\n"


def test_saved_configuration_has_the_hash_of_the_composed_one(
    compose_quick: Compose, quick_run: RunFolder
):
    composed, saved = compose_quick([]), quick_run.load_config()
    assert digest(composed) == digest(saved)  # type: ignore[arg-type]
    other = changed(saved, {"moco.temperature": 0.2})
    assert digest(composed) != digest(other)  # type: ignore[arg-type]


# ---- what is said at the end


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[SweepRecord]:
    """A sweep that has begun."""
    record = SweepRecord()
    record.on_multirun_start(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    yield record
    SweepRecord.current = None


def job_config(record: SweepRecord, number: int) -> DictConfig:
    assert record.sweep is not None
    runtime = {"output_dir": str(record.sweep / f"job{number}")}
    return OmegaConf.create({"hydra": {"runtime": runtime, "job": {"num": number}}})


def run_jobs(
    record: SweepRecord, ends: Sequence[Outcome | Result | Exception | None]
) -> list[RunFolder]:
    """Let jobs begin and, but for None, end."""
    folders = []
    for number, end in enumerate(ends):
        config = job_config(record, number)
        folders.append(RunFolder(Path(config.hydra.runtime.output_dir)))
        folders[-1].path.mkdir(exist_ok=True)
        record.on_job_start(config)
        if end is not None:
            value = Result(end) if isinstance(end, Outcome) else end
            record.on_job_end(config, JobReturn(_return_value=value))
    return folders


def test_end_of_a_sweep_counts_the_jobs_and_names_those_that_failed(
    sweep: SweepRecord, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    failure = Result(Outcome.failed, "a.b=1: too small")
    done = [Outcome.finished, failure, Outcome.skipped, *[Outcome.finished] * 9, None]
    with pytest.raises(SystemExit) as error, told_at_end():
        folders = run_jobs(sweep, done)
        folders[1].failed.write_text("another start's reason\n")
    assert error.value.code == 1
    out, err = capsys.readouterr()
    assert f"sweep {tmp_path}: 10 finished, 1 skipped, 1 failed, 1 stopped\n" in out
    assert f"next: python -m mocosfl.report {tmp_path}\n" in out
    lines = err.splitlines()
    assert lines[0] == f"mocosfl: failed: {folders[1].path}: a.b=1: too small"
    assert lines[1].startswith(f"mocosfl: stopped: {folders[12].path}: cut off (killed, ")
    assert len(lines) == 2
    assert not (tmp_path / ".jobs").exists()


def test_job_that_hydra_ends_with_an_exception_has_failed_for_its_reason(sweep: SweepRecord):
    (folder,) = run_jobs(sweep, [RuntimeError("no such luck\nat all")])
    assert sweep.jobs() == [Job(folder, Outcome.failed, "RuntimeError: no such luck")]


def test_sweep_without_failures_ends_well(
    sweep: SweepRecord, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    with told_at_end():
        run_jobs(sweep, [Outcome.finished, Outcome.skipped])
    out, err = capsys.readouterr()
    assert out.startswith(f"sweep {tmp_path}: 1 finished, 1 skipped, 0 failed\n")
    assert err == ""


def test_sweep_that_is_broken_off_says_how_to_go_on_and_ends_as_it_would_have(
    sweep: SweepRecord, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended, told_at_end():
        run_jobs(sweep, [Outcome.finished, None])
        raise KeyboardInterrupt
    assert ended.value.code == 130  # what a shell expects of Ctrl-C, and no traceback
    assert "broken off; the same command goes on with it" in capsys.readouterr().out


def test_job_running_elsewhere_is_no_failure_and_counts_as_skipped_once_it_is_done(
    sweep: SweepRecord, tmp_path: Path
):
    (folder,) = run_jobs(sweep, [Outcome.elsewhere])
    assert sweep.jobs() == [Job(folder, Outcome.elsewhere)]
    assert failures(sweep.jobs()) == []
    assert "1 running elsewhere" in summary(tmp_path, sweep.jobs())
    assert "start the command again" in summary(tmp_path, sweep.jobs())
    folder.finished.touch()
    assert sweep.jobs() == [Job(folder, Outcome.skipped)]
    assert "start the command again" not in summary(tmp_path, sweep.jobs())


def test_sweep_with_jobs_elsewhere_says_to_start_it_again_and_is_no_success(
    sweep: SweepRecord, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as error, told_at_end():
        run_jobs(sweep, [Outcome.finished, Outcome.elsewhere, Outcome.elsewhere])
    assert error.value.code == 1
    out, err = capsys.readouterr()
    assert "\n2 running elsewhere: start the command again when they are done\n" in out
    assert err == ""


def test_job_that_outlives_the_process_that_waits_for_it_is_told_from_a_dead_one(
    sweep: SweepRecord,
):
    (folder,) = run_jobs(sweep, [None])
    assert sweep.jobs() == [Job(folder, Outcome.stopped)]
    with folder.locked():
        assert sweep.jobs() == [Job(folder, Outcome.elsewhere)]


def test_two_starts_of_one_sweep_count_their_own_jobs(sweep: SweepRecord, tmp_path: Path):
    other = SweepRecord()
    other.on_multirun_start(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    run_jobs(sweep, [Outcome.finished, Outcome.finished])
    run_jobs(other, [Outcome.skipped])
    assert [job.outcome for job in sweep.jobs()] == [Outcome.finished, Outcome.finished]
    assert [job.outcome for job in other.jobs()] == [Outcome.skipped]


def test_single_run_leaves_no_record(tmp_path: Path):
    record, config = SweepRecord(), OmegaConf.create({"hydra": {}})
    record.on_job_start(config)
    record.on_job_end(config, JobReturn(_return_value=Result(Outcome.finished)))
    with told_at_end():
        pass
    assert list(tmp_path.iterdir()) == []


def test_lock_of_a_folder_ends_with_its_process(tmp_path: Path):
    code = (
        "import os, pathlib, sys; from mocosfl.runs.folder import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).locked(): print(flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(FolderBusy, match="another process"), RunFolder(tmp_path).locked():
            pass
        holder.kill()
    with RunFolder(tmp_path).locked():
        pass


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
    with initialize_config_dir(str(CONF), version_base=None):
        config = hydra_compose("config", overrides, return_hydra_config=True)
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
