"""What Lightning's strategy does beside the training of several processes."""

import time

from mocosfl.training.processes.strategy import PoolStrategy
from mocosfl.training.processes.workers import failure_time


def test_failure_is_timed_before_the_processes_part():
    error = RuntimeError("out of memory")
    PoolStrategy().on_exception(error)
    parted = time.monotonic()
    assert failure_time(error) <= parted
