"""What follows from a configuration: the figures printed before a run.

This is the one place that computes them; they are never written back into the configuration.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mocosfl.build import (
    batch_sizes,
    build_projector,
    build_split,
    keys_per_row,
    pool_size,
)
from mocosfl.config import ClientState, Config, Symmetric
from mocosfl.data.round_plan import steps_per_round, sync_steps

PARAMETER_BYTES = {"fp32": 4, "bf16": 4, "fp64": 8}  # bf16 is autocast: weights stay fp32
ACTIVATION_BYTES = {"fp32": 4, "bf16": 2, "fp64": 8}


@dataclass(frozen=True)
class Plan:
    """Figures of a run; bytes are of one client that takes part in a round."""

    pool_size: int  # P
    steps_per_round: int  # S
    num_steps: int  # of the whole run, as scheduled
    rows_per_step: int  # images on the server a step
    keys_per_step: int
    syncs_per_round: int
    num_syncs: int
    smashed_shape: tuple[int, int, int]
    head_parameters: int
    trunk_parameters: int
    projector_parameters: int
    up_bytes: int
    down_bytes: int
    bank_bytes: int  # memory of the client bank once every client has taken part
    images_per_client: tuple[int, float, int]  # least, mean, most


def make_plan(config: Config, counts: npt.NDArray[np.int64]) -> Plan:
    """Compute the plan of a run.

    Args:
        config: a valid configuration.
        counts: (N,) images of each client.
    """
    with torch.device("meta"):
        split = build_split(config)
        projector = build_projector(config, split)
    head, trunk, project = (
        sum(p.numel() for p in part.parameters()) for part in (split.head, split.trunk, projector)
    )
    clients, pool = config.clients, pool_size(config)
    steps = steps_per_round(
        counts, batch_sizes(config), local_epochs=config.method.local_epochs
    )
    syncs = int(sync_steps(steps, clients.syncs_per_round).sum())
    up, down = _traffic(config, steps, syncs=syncs, head=head, smashed=split.smashed_shape)
    return Plan(
        pool_size=pool,
        steps_per_round=steps,
        num_steps=steps * clients.num_rounds,
        rows_per_step=pool * clients.batch_size,
        keys_per_step=pool * clients.batch_size * keys_per_row(config),
        syncs_per_round=syncs,
        num_syncs=syncs * clients.num_rounds,
        smashed_shape=split.smashed_shape,
        head_parameters=head,
        trunk_parameters=trunk,
        projector_parameters=project,
        up_bytes=up,
        down_bytes=down,
        bank_bytes=_bank_bytes(config, head),
        images_per_client=(int(counts.min()), float(counts.mean()), int(counts.max())),
    )


def _traffic(
    config: Config, steps: int, *, syncs: int, head: int, smashed: tuple[int, int, int]
) -> tuple[int, int]:
    """Return bytes up and down of a client in a round: smashed data and weights."""
    passes = 2 if config.moco.symmetric is Symmetric.full else 1  # both views through both heads
    images = steps * config.clients.batch_size * passes
    latent = images * int(np.prod(smashed)) * ACTIVATION_BYTES[config.trainer.precision]
    frozen = config.optimizer.client_lr == 0
    copies = 2 if config.method.align_momentum else 1
    weights = 0 if frozen else syncs * copies * head * PARAMETER_BYTES[config.trainer.precision]
    return 2 * latent + weights, (0 if frozen else latent) + weights


def _bank_bytes(config: Config, head: int) -> int:
    clients = config.clients
    everyone = pool_size(config) < clients.num_clients
    own = everyone and clients.client_state is ClientState.bank
    rows = clients.num_clients if own else 1
    trained = config.optimizer.client_lr > 0
    momentum = rows if trained and not config.method.align_momentum else 1
    sgd = rows if trained and config.optimizer.momentum > 0 else 1
    # The online head is one for all: a sync ends each round.
    return (1 + momentum + sgd) * head * PARAMETER_BYTES[config.trainer.precision]


def describe(config: Config, plan: Plan) -> str:
    """Return the plan as text for the terminal and `plan.txt`."""
    c, least = config.clients, plan.images_per_client
    smashed = " x ".join(map(str, plan.smashed_shape))
    pair = config.split.bottleneck_channels
    cut = f"cut {config.split.cut_layer}" + (
        f", bottleneck C{pair}S{config.split.bottleneck_stride}" if pair else ""
    )
    max_steps = config.trainer.max_steps
    capped = f", stopping after {max_steps:,}" if 0 < max_steps < plan.num_steps else ""
    lines = [
        ("method", f"{config.method.name} on {config.dataset.name}, seed {config.seed}"),
        ("network", f"{config.backbone.name}, width {config.backbone.width}, {cut}"),
        ("partition", _describe_partition(config)),
        ("clients", f"{c.num_clients:,}, pool of {plan.pool_size:,} a round "
                    f"({c.client_state.name})"),
        ("images a client", f"{least[0]:,} to {least[2]:,}, mean {least[1]:,.1f}"),
        ("batch", f"{c.batch_size} a client, {plan.rows_per_step:,} rows a step on the server"),
        ("queue", f"{config.moco.queue_length:,} keys, {plan.keys_per_step:,} new a step"),
        ("rounds", f"{c.num_rounds:,} of {plan.steps_per_round:,} steps = {plan.num_steps:,} steps"
                   + capped),
        ("syncs", f"{plan.syncs_per_round:,} a round = {plan.num_syncs:,} sync events"),
        ("smashed", f"{smashed} an image"),
        ("parameters", f"head {plan.head_parameters:,}, trunk {plan.trunk_parameters:,}, "
                       f"projector {plan.projector_parameters:,}"),
        ("traffic", f"{megabytes(plan.up_bytes)} up, {megabytes(plan.down_bytes)} down "
                    "a client and round"),
        ("client bank", megabytes(plan.bank_bytes)),
    ]  # fmt: skip
    return "\n".join(f"{name:<16} {text}" for name, text in lines)


def _describe_partition(config: Config) -> str:
    p = config.partition
    detail = {
        "iid": "random equal parts",
        "shards": f"{p.classes_per_client} of {config.dataset.num_classes} classes a client",
        "dirichlet": f"alpha {p.alpha}, at least {p.min_images} images a client",
        "quantity_skew": f"alpha {p.alpha}, at least {p.min_images} images a client",
        "file": str(p.path),
    }
    return f"{p.kind.name}: {detail[p.kind.name]}"


def megabytes(num_bytes: float) -> str:
    """Format bytes as MB of 2^20 bytes, the papers' unit."""
    return f"{num_bytes / 2**20:,.2f} MB"
