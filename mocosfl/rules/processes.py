"""Rules for `trainer.devices`, the processes that share each round's pool."""

from collections.abc import Iterator

import torch

from mocosfl.config.choices import LEARNING
from mocosfl.config.derived import pool_size
from mocosfl.config.schema import Config


def process_rules(config: Config) -> Iterator[str]:
    """Yield a line for each thing that several processes, or so many, can't do."""
    trainer, devices = config.trainer, config.trainer.devices
    if devices < 1:
        yield f"trainer.devices={devices}: must be at least 1, the number of processes"
    if devices <= 1:
        return
    key, alone = f"trainer.devices={devices}", "set trainer.devices=1"
    if 0 < config.clients.participation <= 1 and 1 <= pool_size(config) < devices:
        yield (
            f"{key}: the pool of a round has {pool_size(config)} clients, and each process needs "
            f"one; use at most that many processes, or a larger clients.participation"
        )
    gpu = trainer.accelerator != "cpu" and torch.cuda.is_available()
    if gpu and devices > torch.cuda.device_count():
        yield (
            f"{key}: a process needs a GPU of its own, and there are {torch.cuda.device_count()}; "
            "use at most that many, or trainer.accelerator=cpu"
        )
    if config.saving.enabled:
        yield f"{key}: saving.enabled=true is for one process; {alone}, or saving=off"
    if config.taressfl.mode in LEARNING:
        yield (
            f"{key}: the attackers of taressfl.mode={config.taressfl.mode.name} live in one "
            f"process; {alone}"
        )
    batch_norm = config.moco.projector_batch_norm and not config.method.supervised
    if batch_norm and not config.method.whole_network:
        yield (
            f"{key}: moco.projector_batch_norm=true would take each process's rows for the whole "
            f"batch; {alone}, or moco.projector_batch_norm=false"
        )
