"""Processes that fail before they train, and the end of all with the first."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mocosfl.system.errors import TrainingStopped
from mocosfl.training.processes.workers import RankJob, WorkerFailed, further_processes
from tests.support.paths import ROOT
from tests.support.running_processes import running


def fail_at_once(job: RankJob, ready: Callable[[], None]) -> None:
    raise ValueError(f"no data for rank {job.rank}")


def vanish(job: RankJob, ready: Callable[[], None]) -> None:
    os._exit(3)


def wait_for_ever(job: RankJob, ready: Callable[[], None]) -> None:
    ready()
    time.sleep(1000)


def begin_and_fail(job: RankJob, ready: Callable[[], None]) -> None:
    ready()
    raise ValueError(f"no step for rank {job.rank}")


def begin_and_fail_later(job: RankJob, ready: Callable[[], None]) -> None:
    ready()
    time.sleep(1)
    raise RuntimeError("connection closed by peer")


def fail_in_reverse_order(job: RankJob, ready: Callable[[], None]) -> None:
    ready()
    fails = job.folder / "2 fails"
    if job.rank == 2:
        fails.touch()
    else:
        while not fails.exists():
            time.sleep(0.1)
        time.sleep(0.5)
    raise ValueError(f"no step for rank {job.rank}")


def job(rank: int = 1, folder: Path = Path()) -> RankJob:
    return RankJob({}, folder, None, rank, 0)


def await_children() -> None:
    for process in multiprocessing.active_children():
        process.join()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "words"),
    [
        (fail_at_once, r"(?s)process 1 .*ValueError: no data for rank 1"),
        (vanish, "ended with exit code 3"),
    ],
)
def test_failure_before_training_is_told(work: Any, words: str):
    with pytest.raises(WorkerFailed, match=words), further_processes(work, [job()]):
        pytest.fail("began without it")
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, RuntimeError, TrainingStopped])
def test_failure_of_the_first_process_stays_its_own_and_leaves_no_other(
    error: Any, monkeypatch: pytest.MonkeyPatch
):
    # What it waits for a worker that has not failed.
    monkeypatch.setattr("mocosfl.training.processes.workers.WORD_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(error), further_processes(wait_for_ever, [job()]):
        start = time.monotonic()
        raise error("enough")
    assert time.monotonic() - start < 5
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_failure_of_a_further_process_replaces_the_error_that_it_led_to():
    words = r"(?s)process 1 .*no step for rank 1"
    with (
        pytest.raises(WorkerFailed, match=words) as raised,
        further_processes(begin_and_fail, [job()]),
    ):
        await_children()
        raise RuntimeError("connection closed by peer")
    assert str(raised.value.__cause__) == "connection closed by peer"
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_failure_that_the_first_process_led_to_does_not_replace_its_error():
    with (
        pytest.raises(RuntimeError, match="out of memory"),
        further_processes(begin_and_fail_later, [job()]),
    ):
        raise RuntimeError("out of memory")


def begin_and_die(job: RankJob, ready: Callable[[], None]) -> None:
    ready()
    os.kill(os.getpid(), int(job.folder.name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("death", "error", "words"),
    [
        (signal.SIGKILL, WorkerFailed, r"process 1 .*\n.*killed"),
        (signal.SIGABRT, RuntimeError, "^the first process's own$"),  # as NCCL ends its partners
    ],
)
def test_silent_death_is_the_cause_unless_the_exchange_ended_it(
    death: signal.Signals, error: type[Exception], words: str
):
    with (
        pytest.raises(error, match=words),
        further_processes(begin_and_die, [job(folder=Path(str(death.value)))]),
    ):
        await_children()
        raise RuntimeError("the first process's own")


@pytest.mark.slow
def test_first_of_several_failures_is_told(tmp_path: Path):
    with (
        pytest.raises(WorkerFailed, match=r"(?s)process 2 .*no step for rank 2"),
        further_processes(fail_in_reverse_order, [job(rank, tmp_path) for rank in (1, 2)]),
    ):
        await_children()
        raise RuntimeError("connection closed by peer")


@pytest.mark.slow
def test_process_ends_with_the_first_however_that_is_killed():
    script = (
        "import multiprocessing, sys, time\n"
        f"from {__name__} import further_processes, job, wait_for_ever\n"
        "if __name__ == '__main__':\n"
        "    with further_processes(wait_for_ever, [job()]):\n"
        "        print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "        time.sleep(1000)\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert first.stdout is not None
    pid = int(first.stdout.readline())
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    until = time.monotonic() + 20
    while running(pid):
        assert time.monotonic() < until, "the further process goes on"
        time.sleep(0.1)
