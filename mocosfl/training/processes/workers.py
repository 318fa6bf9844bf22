"""The further processes of a run: started, watched and ended by the first.

Lightning's launcher would run the command again in each; here a further process only trains. All
writing is the first one's.
"""

import logging
import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

from mocosfl.system.errors import TrainingStopped

log = logging.getLogger(__name__)

READY = "ready"
# For a process to end by itself after another one has.
GRACE_SECONDS = 20.0
# For a process to say why it failed, after the first one has. If it has not failed, this is lost.
WORD_SECONDS = 10.0


class WorkerFailed(RuntimeError):
    """A further process has failed; the message holds its traceback."""

    def __init__(self, message: str, failed_at: float) -> None:
        super().__init__(message)
        self.failed_at = failed_at


class RankJob(NamedTuple):
    """What a further process is told."""

    config: dict[str, Any]  # the run's, plain values
    folder: Path  # of the run
    checkpoint: Path | None  # to go on from
    rank: int
    port: int  # where the processes find each other


Work = Callable[[RankJob, Callable[[], None]], None]  # calls its second argument when it can begin


class _Worker(NamedTuple):
    process: SpawnProcess
    connection: Connection  # sends READY, then (time, traceback) of a failure
    rank: int


def failure_time(error: BaseException) -> float:
    """Return when an error was first seen here, in seconds of a clock that all processes share.

    First asked before the process parts from the others: they then fail too, and of all failures
    the first is the one to tell.
    """
    when: float = vars(error).setdefault("failed_at", time.monotonic())
    return when


@contextmanager
def further_processes(work: Work, jobs: Sequence[RankJob]) -> Iterator[None]:
    """Run further processes beside what is done in the context.

    Args:
        work: of each, a function of a module.
        jobs: one for each.

    Raises:
        WorkerFailed: one has failed.
    """
    workers = [_start(work, job) for job in jobs]
    over = threading.Event()
    try:
        for worker in workers:
            _await_ready(worker)
        threading.Thread(target=_watch, args=(workers, over), daemon=True).start()
        yield
        _await_end(workers)
    except (WorkerFailed, TrainingStopped):
        raise
    except RuntimeError as error:  # perhaps of the exchange with a process that is gone
        failure = _first_failure(workers, before=failure_time(error))
        if failure is None:
            raise
        raise failure from error
    finally:
        over.set()
        _end(workers)


def _start(work: Work, job: RankJob) -> _Worker:
    # "spawn": a fork would inherit threads and, on a GPU, a context that it can't use.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_run, args=(work, job, theirs), name=f"rank {job.rank}", daemon=True
    )
    with _known_start_method():
        process.start()
    theirs.close()
    return _Worker(process, ours, job.rank)


@contextmanager
def _known_start_method() -> Iterator[None]:
    """Make "spawn" the usual way for a moment: a new process is told it and must know it.

    In a job of `launcher=joblib` it is joblib's own, which Python does not know.
    """
    usual = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(usual, force=True)


def _run(work: Work, job: RankJob, connection: Connection) -> None:
    """Do the work in the further process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(job, lambda: connection.send(READY))
    except TrainingStopped:
        pass  # the first process has stopped for the same reason, and says so
    except BaseException as error:
        connection.send((failure_time(error), traceback.format_exc()))
        connection.close()
        os._exit(1)  # not to wait for exchanges with processes that are gone


def _end_with_parent() -> None:
    """End this process with the first one, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _await_ready(worker: _Worker) -> None:
    """Wait until a worker can begin: one that fails before would be waited for in vain."""
    failure = _failure(worker, timeout=None)
    if failure is not None:
        raise failure


def _failure(worker: _Worker, *, timeout: float | None) -> WorkerFailed | None:
    """Return why a worker has failed, waiting for a word of it; None if it has not."""
    try:
        if not worker.connection.poll(timeout):
            return None
        word = worker.connection.recv()
        if word == READY:
            return None
        failed_at, message = word
    except (EOFError, OSError):  # closed without a word
        worker.process.join(GRACE_SECONDS)
        code = worker.process.exitcode
        if code == 0:
            return None
        # It died of no other's failure, unless it was NCCL that ended it: its watchdog aborts a
        # process whose partner is gone.
        failed_at = math.inf if code == -signal.SIGABRT else -math.inf
        message = f"it ended with exit code {code}"
        if code == -signal.SIGKILL:
            message = "it was killed, perhaps for want of memory"
    words = f"process {worker.rank} of the run (trainer.devices) failed:\n{message}"
    return WorkerFailed(words, failed_at)


def _first_failure(workers: Sequence[_Worker], *, before: float) -> WorkerFailed | None:
    """Return the first of the failures before a time; None if there are none."""
    until = time.monotonic() + WORD_SECONDS
    found = [_failure(worker, timeout=max(0.0, until - time.monotonic())) for worker in workers]
    failures = [failure for failure in found if failure is not None and failure.failed_at < before]
    return min(failures, key=lambda failure: failure.failed_at, default=None)


def _await_end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.process.join(GRACE_SECONDS)
        failure = _failure(worker, timeout=0)
        if failure is not None:
            raise failure


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        if worker.process.is_alive():
            worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _watch(workers: Sequence[_Worker], over: threading.Event) -> None:
    """End this process where it waits for one that is gone.

    On a CPU the exchange with it fails at once. On a GPU it may hang until its time is up, where
    Python can't be interrupted.
    """
    waiting = {worker.process.sentinel: worker for worker in workers}
    while waiting and not over.is_set():
        for sentinel in wait(list(waiting), timeout=1.0):
            worker = waiting.pop(sentinel)  # type: ignore[arg-type]
            # First the wait: two threads that ask for an exit code at once may get none.
            if over.wait(3 * GRACE_SECONDS) or worker.process.exitcode == 0:
                continue
            failure = _failure(worker, timeout=0)
            log.critical("%s\nthe run hangs on it and is ended", failure)
            os._exit(1)
