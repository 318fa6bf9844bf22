"""Whether a run can fit into memory at all; asked before it starts.

Many clients are cheap as long as few are in the pool and none keeps a state of its own. Where that
is not so, the system would end the run without a word, perhaps after hours.
"""

import math
import os
from collections.abc import Iterator

import torch

from mocosfl.config import ClientState, Config
from mocosfl.plan import Plan
from mocosfl.sizes import megabytes

_NUM_VIEWS = 2  # of a step's images, normalised floats


def check_memory(
    config: Config, plan: Plan, *, host_bytes: int | None = None, gpu_bytes: int | None = None
) -> None:
    """Refuse a run whose least need is more than the machine has.

    Args:
        config: a valid configuration.
        plan: of the run.
        host_bytes: memory of the machine; None: asked of the system.
        gpu_bytes: memory of the GPU that the run uses, 0 for none; None: asked of PyTorch.

    Raises:
        ValueError: names what does not fit, and the way out.
    """
    host = _host_bytes() if host_bytes is None else host_bytes
    gpu = _gpu_bytes(config) if gpu_bytes is None else gpu_bytes
    problems = list(_problems(config, plan, host, gpu))
    if problems:
        raise ValueError("\n".join(problems))


def pool_bytes(config: Config, plan: Plan) -> int:
    """Return what the pool takes at least: its stacked heads, a step's views and smashed data."""
    value = 8 if config.trainer.precision == "fp64" else 4
    sent = 2 if config.trainer.precision == "bf16" else value
    # Online and momentum heads; those that are trained have a gradient and an SGD buffer too.
    copies = 2 if config.optimizer.client_lr == 0 else 3 + (config.optimizer.momentum > 0)
    heads = plan.pool_size * plan.head_parameters * copies * value
    image = _NUM_VIEWS * 3 * config.dataset.image_size**2 * 4
    smashed = 2 * math.prod(plan.smashed_shape or (0,)) * sent  # query and key
    return heads + plan.rows_per_step * (image + smashed)


def _problems(config: Config, plan: Plan, host: int, gpu: int) -> Iterator[str]:
    number = config.trainer.devices
    # Of a GPU: it has its process's clients; of the machine: each process has the whole bank.
    pool, bank = pool_bytes(config, plan), number * plan.bank_bytes
    if gpu:
        pool = -(-pool // number)
    if pool > (gpu or host):
        yield (
            f"clients.participation={config.clients.participation}: a pool of {plan.pool_size:,} "
            f"clients takes at least {megabytes(pool)} for its heads, views and smashed data, and "
            f"{'the GPU' if gpu else 'this machine'} has {megabytes(gpu or host)}; lower "
            "clients.participation or clients.batch_size"
        )
    elif bank + (0 if gpu else pool) > host and config.clients.client_state is ClientState.bank:
        yield (
            f"clients.client_state=bank: the states of {config.clients.num_clients:,} clients take "
            f"{megabytes(bank)}, and this machine has {megabytes(host)}; set "
            "clients.client_state=stateless, which keeps the pool's alone, or lower "
            "clients.num_clients"
        )


def _host_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gpu_bytes(config: Config) -> int:
    if config.trainer.accelerator == "cpu" or not torch.cuda.is_available():
        return 0
    return torch.cuda.get_device_properties(0).total_memory
