"""The contestant `ours`: what `python train.py` does, under a pace; whole, or in parts."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.optim import Optimizer

from benchmarks.configuration import Run, open_run
from benchmarks.contest import Pace
from benchmarks.parts import Parts
from mocosfl.data.federated_data import FederatedData
from mocosfl.overhead.plan import make_plan
from mocosfl.runs.folder import RunFolder
from mocosfl.system.logs import setup_logging
from mocosfl.tracking.loggers import open_loggers
from mocosfl.training.build import build_module
from mocosfl.training.data_module import DataModule
from mocosfl.training.trainer import make_trainer


def ours(run: Run, pace: Pace) -> None:
    """Train the run with Lightning and the callbacks of a run."""
    _fit(run, [Paced(pace)], None)


def ours_in_parts(run: Run, pace: Pace) -> None:
    """Train it with a clock on each part; slower by the clocks, and on a GPU by waiting at each."""
    parts = Parts(run.device)
    pace.parts = parts.take
    _fit(run, [PartsOfStep(parts), Paced(pace)], parts)


def _fit(run: Run, callbacks: list[Callback], parts: Parts | None) -> None:
    setup_logging()
    config = open_run(run.overrides)
    data = FederatedData(config)
    plan = make_plan(config, data.partition.counts)
    module = build_module(config, plan.steps_per_round, counts=data.partition.counts)
    if parts is not None:
        parts.watch_federation(module.federation)
    with TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch))
        with open_loggers(config, folder) as loggers:
            trainer = make_trainer(config, folder, plan, loggers)
            trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
            trainer.fit(module, datamodule=DataModule(data))


class Paced(Callback):
    """Lets the pace stop the run between two steps; the last callback of all."""

    def __init__(self, pace: Pace) -> None:
        """Keep the pace."""
        self.pace = pace

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the first block."""
        self.pace.begin()

    def on_train_batch_end(self, *_: Any) -> None:
        """Count the step."""
        self.pace.step_done()


class PartsOfStep(Callback):
    """Times the backward pass and the optimizer, which are Lightning's to call."""

    def __init__(self, parts: Parts) -> None:
        """Keep the clock."""
        self.parts = parts

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the end of each optimizer step."""
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(lambda *_: self.parts.stop())

    def on_before_backward(self, *_: Any) -> None:
        """Begin with the server's part; `Parts` notes where the gradient crosses the cut."""
        self.parts.start("backward, server")

    def on_after_backward(self, *_: Any) -> None:
        """End with the heads."""
        self.parts.stop()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Begin: Lightning comes here when the gradients are ready."""
        self.parts.start("optimizers")
