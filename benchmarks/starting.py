"""What `train.py` does up to the end of its first step; imports all that it imports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import Callback

from benchmarks.configuration import open_run
from benchmarks.contest import Finished, synchronise
from mocosfl.data.federated_data import FederatedData
from mocosfl.overhead.plan import make_plan
from mocosfl.runs.folder import RunFolder
from mocosfl.system.logs import setup_logging
from mocosfl.tracking.loggers import open_loggers
from mocosfl.training.build import build_module
from mocosfl.training.data_module import DataModule
from mocosfl.training.run_files import write_start
from mocosfl.training.trainer import make_trainer


class StopBehindFirst(Callback):
    """Ends a run behind its first step."""

    def __init__(self, device: str) -> None:
        """Keep the device, which is waited for."""
        self.device = device

    def on_train_batch_end(self, *_: Any) -> None:
        """End it."""
        synchronise(self.device)
        raise Finished


def start(
    overrides: tuple[str, ...], path: Path, phase_ends: Callable[[str], None], *, device: str
) -> None:
    """Start a run and stop behind its first step.

    Args:
        overrides: of the composed configuration.
        path: of the run's folder.
        phase_ends: is told the name of each phase when it ends.
        device: `cpu` or `cuda`.
    """
    setup_logging()
    config = open_run(overrides)
    phase_ends("configuration")
    folder, data = RunFolder(path), FederatedData(config)
    phase_ends("data and partition")
    plan = make_plan(config, data.partition.counts)
    phase_ends("plan")
    write_start(config, folder, data, plan)
    phase_ends("files")
    module = build_module(config, plan.steps_per_round, counts=data.partition.counts)
    phase_ends("build")
    with open_loggers(config, folder) as loggers:
        trainer = make_trainer(config, folder, plan, loggers)
        trainer.callbacks.append(StopBehindFirst(device))  # type: ignore[attr-defined]
        try:
            trainer.fit(module, datamodule=DataModule(data))
        except Finished:
            phase_ends("first step")
