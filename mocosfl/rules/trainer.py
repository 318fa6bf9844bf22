"""Rules for the seed and `trainer`, of these also for the processes that share each pool."""

from collections.abc import Iterator

from mocosfl.config.choices import LEARNING
from mocosfl.config.derived import is_supervised, is_whole_network, pool_size
from mocosfl.config.schema import Config
from mocosfl.rules.problems import too_small


def trainer_rules(config: Config) -> Iterator[str]:
    """Yield a line for each number outside its bounds."""
    trainer = config.trainer
    at_least = [
        ("seed", config.seed, 0),
        ("trainer.log_every_steps", trainer.log_every_steps, 1),
        ("trainer.overfit_steps", trainer.overfit_steps, 0),
        ("trainer.view_block_images", trainer.view_block_images, 1),
    ]
    if trainer.num_threads is not None:
        at_least.append(("trainer.num_threads", trainer.num_threads, 1))
    yield from too_small(at_least)
    if trainer.max_steps < 1 and trainer.max_steps != -1:
        yield f"trainer.max_steps={trainer.max_steps}: must be at least 1, or -1 for all"
    if trainer.devices < 1:
        yield f"trainer.devices={trainer.devices}: must be at least 1, the number of processes"


def process_rules(config: Config) -> Iterator[str]:
    """Yield a line for each thing that several processes can't do."""
    devices = config.trainer.devices
    if devices <= 1:
        return
    key, alone = f"trainer.devices={devices}", "set trainer.devices=1"
    if 0 < config.clients.participation <= 1 and 1 <= pool_size(config) < devices:
        yield (
            f"{key}: the pool of a round has {pool_size(config)} clients, and each process needs "
            f"one; use at most that many processes, or a larger clients.participation"
        )
    if config.saving.enabled:
        yield f"{key}: saving.enabled=true is for one process; {alone}, or saving=off"
    if config.taressfl.mode in LEARNING:
        yield (
            f"{key}: the attackers of taressfl.mode={config.taressfl.mode.name} live in one "
            f"process; {alone}"
        )
    batch_norm = config.moco.projector_batch_norm and not is_supervised(config)
    if batch_norm and not is_whole_network(config):
        yield (
            f"{key}: moco.projector_batch_norm=true would take each process's rows for the whole "
            f"batch; {alone}, or moco.projector_batch_norm=false"
        )
