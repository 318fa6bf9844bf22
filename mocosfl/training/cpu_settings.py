"""How a process computes on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mocosfl.config.schema import Config
from mocosfl.system.device import keep_freed_memory


def keep_memory(config: Config) -> None:
    """Let the process keep what it frees, where it computes on the CPU and the run wants so."""
    on_cpu = config.trainer.accelerator == "cpu" or not torch.cuda.is_available()
    if config.trainer.keep_freed_memory and on_cpu:
        keep_freed_memory()


@contextmanager
def cpu_settings(config: Config) -> Iterator[None]:
    """Compute on `trainer.num_threads` CPU threads, by default this process's part of all.

    The setting of `keep_memory` outlives the context.
    """
    keep_memory(config)
    num_threads = torch.get_num_threads()
    part = max(1, num_threads // config.trainer.devices)
    torch.set_num_threads(config.trainer.num_threads or part)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
