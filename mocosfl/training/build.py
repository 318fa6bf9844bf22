"""From the configuration to what Lightning trains."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from mocosfl.config.choices import Averaging
from mocosfl.config.identity import plain
from mocosfl.config.schema import Config
from mocosfl.federation.build import build_federation, build_saving
from mocosfl.federation.federation import Federation
from mocosfl.federation.optimizer import OptimizerSettings
from mocosfl.federation.ranks import ALONE, Ranks
from mocosfl.overhead.plan import Plan
from mocosfl.privacy.build import build_attackers
from mocosfl.runs.folder import RunFolder
from mocosfl.training.collapse import read_collapses
from mocosfl.training.initial_weights import start_from_expert
from mocosfl.training.module import MocoSFL


def build_module(
    config: Config,
    steps_per_round: int,
    *,
    counts: npt.NDArray[np.int64] | None = None,
    smashed_folder: Path | None = None,
    num_collapses: int = 0,
    ranks: Ranks = ALONE,
) -> MocoSFL:
    """Build what Lightning trains.

    Args:
        config: a valid configuration.
        steps_per_round: S.
        counts: (N,) images of each client, see `build_federation`.
        smashed_folder: where `saving=by_loss` keeps a round's smashed data.
        num_collapses: from which the run has gone back to a good checkpoint.
        ranks: the process among those of the run.
    """
    if config.averaging.kind is Averaging.by_images and counts is None:
        raise ValueError("averaging.kind=by_images: needs the number of each client's images")
    optimizer = config.optimizer
    settings = OptimizerSettings(
        server_lr=optimizer.server_lr,
        client_lr=optimizer.client_lr,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        schedule=optimizer.schedule.name,
        client_schedule=optimizer.client_schedule.name,
        step_decay_server=optimizer.step_decay_server,
        step_decay_client=optimizer.step_decay_client,
    )
    module = MocoSFL(
        build_federation(config, counts, ranks),
        settings,
        num_rounds=config.clients.num_rounds,
        steps_per_round=steps_per_round,
        config=plain(config),
        saving=build_saving(config, smashed_folder),
        attackers=build_attackers(config, num_collapses),
        lr_scale=config.taressfl.collapse_lr_factor**num_collapses,
    )
    if config.trainer.compile:
        compile_networks(module.federation, config.trainer.compile_mode)
    # Before a checkpoint is read into it: Lightning does so before it turns the module to fp64.
    return module.double() if config.trainer.precision == "fp64" else module


def build_run(
    config: Config,
    folder: RunFolder,
    plan: Plan,
    counts: npt.NDArray[np.int64],
    *,
    expert: dict[str, Any] | None,
    ranks: Ranks,
) -> MocoSFL:
    """Build what a process of a run trains, with the weights that the run starts from.

    Args:
        config: of the run.
        folder: of the run; holds the collapses that it has gone back from.
        plan: of the run.
        counts: (N,) images of each client.
        expert: checkpoint whose head and server the federation starts from; None for no expert.
        ranks: the process among those of the run.
    """
    module = build_module(
        config,
        plan.steps_per_round,
        counts=counts,
        smashed_folder=folder.smashed,
        num_collapses=len(read_collapses(folder)),
        ranks=ranks,
    )
    if expert is not None:
        start_from_expert(module.federation, expert)
    return module


def compile_networks(federation: Federation, mode: str) -> None:
    """Let torch.compile translate the heads and the server's networks when they are first run.

    Args:
        federation: clients and server.
        mode: of torch.compile.
    """
    sides = (federation.clients, federation.server)
    names = ("online", "momentum", "trunk", "momentum_trunk", "projector", "momentum_projector")
    for module in (getattr(side, name, None) for side in sides for name in names):
        # Without weights there is nothing to gain: the trunk of a whole network on the client.
        if isinstance(module, nn.Module) and any(True for _ in module.parameters()):
            module.compile(mode=mode)
