"""Training itself: from a run's plan to its last step."""

import time
from pathlib import Path
from typing import Any

from mocosfl.config.schema import Config
from mocosfl.data.federated_data import FederatedData
from mocosfl.federation.ranks import ALONE, Ranks
from mocosfl.overhead.plan import Plan
from mocosfl.runs.folder import RunFolder
from mocosfl.tracking.loggers import open_loggers
from mocosfl.training.build import build_run
from mocosfl.training.data_module import DataModule
from mocosfl.training.deployment import Deployment
from mocosfl.training.module import MocoSFL
from mocosfl.training.processes.further_rank import further_ranks
from mocosfl.training.processes.strategy import OwnProcesses, free_port
from mocosfl.training.run_files import draw_curves, write_end, write_finish
from mocosfl.training.trainer import make_trainer


def fit(
    config: Config,
    folder: RunFolder,
    data: FederatedData,
    plan: Plan,
    *,
    deployment: Deployment,
    checkpoint: Path | None,
    expert: dict[str, Any] | None,
    start: float,
) -> MocoSFL:
    """Train to the last step, and write what is known then.

    Args:
        config: of the run.
        folder: where it writes.
        data: of the run.
        plan: of the run.
        deployment: where the clients are.
        checkpoint: to go on from; None for the start.
        expert: whose head and server the federation starts from; None for no expert.
        start: when the run began, by `time.monotonic`.

    Returns:
        The trained module; of several processes the first one's, with its own clients' heads.

    Raises:
        TrainingStopped: the loss is not finite, or the run collapsed.
        WorkerFailed: a further process (trainer.devices) has failed.
    """
    processes = _processes(config)
    ranks = ALONE if processes is None else processes.ranks
    module = build_run(config, folder, plan, data.partition.counts, expert=expert, ranks=ranks)
    with open_loggers(config, folder) as run_loggers:
        try:
            with deployment.wrap(config, module) as module:
                trainer = make_trainer(
                    config, folder, plan, run_loggers, processes, deployment=deployment
                )
                with further_ranks(config, folder, checkpoint, processes):
                    trainer.fit(
                        module, datamodule=DataModule(data), ckpt_path=checkpoint, weights_only=True
                    )
        finally:  # the curves of a run that was stopped by an alarm say why
            draw_curves(config, folder)
        write_end(config, folder, data, module, deployment)
        # Before W&B is closed: an upload may take its time, and nothing is to train by then.
        write_finish(folder, module.global_step, seconds=time.monotonic() - start)
    return module


def _processes(config: Config) -> OwnProcesses | None:
    """Return this process as the first of several; None where it is alone."""
    number = config.trainer.devices
    return None if number == 1 else OwnProcesses(Ranks(0, number), free_port())
