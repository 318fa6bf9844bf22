"""What became of the jobs of a sweep, told by the process that started it.

The jobs may run in other processes, even on other machines. Hydra hands its callbacks on to them,
so the callback here knows which start of which sweep a job belongs to; each job writes a small file
below the sweep's folder when it begins and when it ends, and the first process reads them.
"""

import json
import logging
import shlex
import shutil
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from mocosfl.cli.sweep import Outcome, Result, first_line
from mocosfl.runs.folder import FolderBusy, RunFolder
from mocosfl.runs.resuming import shown
from mocosfl.system.errors import end_interrupted
from mocosfl.system.files import write_atomically

log = logging.getLogger(__name__)

CUT_OFF = "cut off (killed, out of memory, or with the sweep); the same command goes on with it"


class Job(NamedTuple):
    """A job of this start of the sweep."""

    folder: RunFolder
    outcome: Outcome
    reason: str = ""  # why it failed, in one line


class SweepRecord(Callback):
    """Hydra's callback, in the process that starts a sweep and, as a copy, in each of its jobs."""

    current: "SweepRecord | None" = None  # in the process that started a sweep: that sweep's

    def __init__(self) -> None:
        """Belong to no sweep yet."""
        self.sweep: Path | None = None
        self.folder: Path | None = None  # of the jobs' files

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Begin a sweep."""
        self.sweep = Path(config.hydra.sweep.dir).absolute()
        # A folder for each start: two may be under way at once.
        self.folder = self.sweep / ".jobs" / uuid.uuid4().hex[:8]
        self.folder.mkdir(parents=True)
        SweepRecord.current = self

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note that a job has begun."""
        self._write(config, Result(Outcome.stopped))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Note what became of a job."""
        result = job_return._return_value  # the public one raises a job's exception
        if not isinstance(result, Result):  # an exception outside of `run_job`
            result = Result(Outcome.failed, first_line(f"{type(result).__name__}: {result}"))
        self._write(config, result)

    def _write(self, config: DictConfig, result: Result) -> None:
        if self.folder is None:  # a single run
            return
        record = {
            "folder": config.hydra.runtime.output_dir,
            "outcome": result.outcome.name,
            "reason": result.reason,
        }
        write_atomically(self.folder / f"{config.hydra.job.num}.json", json.dumps(record))

    def jobs(self) -> list[Job]:
        """Return the jobs that have begun since this start, in the order of the sweep."""
        assert self.folder is not None
        files = sorted(self.folder.glob("[0-9]*.json"), key=lambda file: int(file.stem))
        return [_read(file) for file in files]

    def close(self) -> None:
        """Remove the jobs' files; what lasts is in the jobs' folders."""
        assert self.folder is not None
        shutil.rmtree(self.folder)
        with suppress(OSError):  # another start of the sweep has its files there
            self.folder.parent.rmdir()
        SweepRecord.current = None


def _read(file: Path) -> Job:
    """Return a job as it stands now, which may be further than it has told."""
    record = json.loads(file.read_text())
    folder, outcome = RunFolder(Path(record["folder"])), Outcome[record["outcome"]]
    if outcome is Outcome.elsewhere and folder.finished.is_file():
        outcome = Outcome.skipped  # the other process has come to the end
    if outcome is Outcome.stopped and _is_busy(folder):
        outcome = Outcome.elsewhere  # on a cluster jobs outlive the process that waits for them
    return Job(folder, outcome, record["reason"])


def _is_busy(folder: RunFolder) -> bool:
    try:
        with folder.locked():
            return False
    except FolderBusy:
        return True


def summary(sweep: Path, jobs: list[Job]) -> str:
    """Return the number of jobs with each outcome, and what to do next."""
    counts = Counter(job.outcome for job in jobs)
    told = [Outcome.finished, Outcome.skipped, Outcome.failed]
    told += [outcome for outcome in (Outcome.elsewhere, Outcome.stopped) if counts[outcome]]
    text = ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in told)
    name = shown(sweep)
    lines = [f"sweep {name}: {text}"]
    if elsewhere := counts[Outcome.elsewhere]:
        lines.append(f"{elsewhere} running elsewhere: start the command again when they are done")
    return "\n".join([*lines, f"next: python -m mocosfl.report {shlex.quote(str(name))}"])


def failures(jobs: list[Job]) -> list[str]:
    """Return a line for each job that did not come to its end: its folder, and why."""
    return [
        f"{job.outcome.value}: {job.folder.path}: {job.reason or CUT_OFF}"
        for job in jobs
        if job.outcome in (Outcome.failed, Outcome.stopped)
    ]


@contextmanager
def told_at_end() -> Iterator[None]:
    """Say what became of a sweep, however it ends; exit with 1 if a job has not finished."""
    ended = False
    try:
        yield
        ended = True
    except KeyboardInterrupt:
        end_interrupted()
    finally:
        record = SweepRecord.current
        if record is not None:
            code = _tell(record, ended=ended)
            if ended and code:
                sys.exit(code)  # else what ended the sweep goes on up, with its own code


def _tell(record: SweepRecord, *, ended: bool) -> int:
    """Print a sweep's summary and failures; return the exit code."""
    assert record.sweep is not None
    jobs = record.jobs()
    record.close()
    if not jobs and not ended:  # Hydra has refused the command line, and said why
        return 1
    sys.stdout.write(summary(record.sweep, jobs) + "\n")
    if not ended:
        sys.stdout.write("the sweep was broken off; the same command goes on with it\n")
    sys.stdout.flush()
    lines = failures(jobs)
    if lines:
        sys.stderr.write("mocosfl: " + "\nmocosfl: ".join(lines) + "\n")
    done = (Outcome.finished, Outcome.skipped)
    return 0 if all(job.outcome in done for job in jobs) else 1
