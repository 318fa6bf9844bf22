"""What a sweep says at its end."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from mocosfl.cli.sweep import Outcome, Result
from mocosfl.cli.sweep_record import Job, SweepRecord, failures, summary, told_at_end
from mocosfl.runs.folder import RunFolder


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
