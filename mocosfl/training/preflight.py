"""What is checked of a run's folder, data and plan before training begins."""

import math
import os
import shutil
from collections.abc import Iterator

import numpy as np
import torch

from mocosfl.config.choices import ClientState
from mocosfl.config.derived import is_frozen
from mocosfl.config.schema import Config
from mocosfl.data.federated_data import FederatedData
from mocosfl.data.partition import Partition
from mocosfl.evaluation.probeable import check_probeable
from mocosfl.overhead.plan import Plan
from mocosfl.rules.problems import refuse
from mocosfl.runs.folder import RunFolder
from mocosfl.system.units import megabytes

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
    refuse(_problems(config, plan, host, gpu))


def pool_bytes(config: Config, plan: Plan) -> int:
    """Return what the pool takes at least: its stacked heads, a step's views and smashed data."""
    value = 8 if config.trainer.precision == "fp64" else 4
    sent = 2 if config.trainer.precision == "bf16" else value
    # Online and momentum heads; those that are trained have a gradient and an SGD buffer too.
    copies = 2 if is_frozen(config) else 3 + (config.optimizer.momentum > 0)
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


def check_fresh(folder: RunFolder) -> None:
    """Refuse a folder that holds a run already."""
    if folder.config.exists():
        raise ValueError(
            f"run_dir={folder.path}: holds a run already; continue it with resume={folder.path}, "
            "or choose another folder"
        )


def check_steps(config: Config, plan: Plan) -> None:
    """Refuse more steps than the round, or the run, has."""
    if config.trainer.overfit_steps > plan.steps_per_round:
        raise ValueError(
            f"trainer.overfit_steps={config.trainer.overfit_steps}: a round has only "
            f"{plan.steps_per_round} steps; use at most that many"
        )
    if config.trainer.max_steps > plan.num_steps:
        raise ValueError(
            f"trainer.max_steps={config.trainer.max_steps}: the run has only {plan.num_steps} "
            f"steps, {config.clients.num_rounds} rounds of {plan.steps_per_round}; raise "
            "clients.num_rounds"
        )


def check_disk(config: Config, folder: RunFolder, plan: Plan) -> None:
    """Refuse what would fill the disk; two rounds of smashed data are kept at most."""
    free = shutil.disk_usage(folder.path).free
    if 2 * plan.attacker_bytes > free:  # a checkpoint is written beside the one before it
        raise ValueError(
            f"taressfl.decoder={config.taressfl.decoder}: the clients' attackers take "
            f"{megabytes(plan.attacker_bytes)} in each checkpoint, twice while one is replaced, "
            f"and {megabytes(free)} are free; choose a smaller decoder, fewer clients, or another "
            "output_dir"
        )
    if 2 * plan.saving_bytes > free:
        raise ValueError(
            f"saving.enabled=true: keeps up to {megabytes(2 * plan.saving_bytes)} of smashed data "
            f"in {folder.smashed}, and {megabytes(free)} are free; choose another output_dir, "
            "fewer images a client, a bottleneck (split=cut1_c4s2), or saving=off"
        )


def check_probe(config: Config, data: FederatedData) -> None:
    """Refuse before training what the probes would refuse after it."""
    if not config.callbacks.probe_at_end:
        return
    key, neighbors = "callbacks.knn_num_neighbors", config.callbacks.knn_num_neighbors
    try:
        check_probeable(config.dataset.name, data.dataset, neighbors, key)
    except ValueError as error:
        raise ValueError(f"{error}; or train with callbacks.probe_at_end=false") from error


def check_partition(folder: RunFolder, data: FederatedData) -> None:
    """Compare what the clients hold now with what they held when the run began."""
    before = Partition.load(folder.partition)
    same = np.array_equal(before.order, data.partition.order)
    if not same or not np.array_equal(before.offsets, data.partition.offsets):
        raise ValueError(
            f"resume={folder.path}: the clients would hold other images than when the run began "
            "(partition.json); put the data set back as it was, or start a fresh run"
        )
