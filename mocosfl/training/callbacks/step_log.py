"""What the steps of a run leave, logged as it goes, and the progress bar."""

import logging
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar

from mocosfl.federation.step_input import Step
from mocosfl.tracking.metrics_log import MetricsLog
from mocosfl.training.callbacks.after_step import AfterStep
from mocosfl.training.module import MocoSFL

log = logging.getLogger(__name__)

# What the progress bar shows beside the kNN monitor: its short name -> the logged one.
SHOWN = {
    "loss": "train/loss",
    "contrast_accuracy": "train/contrast_accuracy",
    "accuracy": "train/accuracy",
    "images/s": "time/images_per_second",
}


def log_values(trainer: pl.Trainer, values: dict[str, float]) -> None:
    """Send values to all loggers, at the step that has just ended, and how far the run is."""
    module = trainer.lightning_module
    assert isinstance(module, MocoSFL)
    values = values | module.progress
    for logger in trainer.loggers:
        logger.log_metrics(values, step=trainer.global_step - 1)


class StepLog(AfterStep):
    """Logs the training metrics, images a second and the steps' seconds.

    Here and not by Lightning's own logging, which writes a step's row after the checkpoint of
    that step: a run killed in between would lose the row.
    """

    def __init__(self, *, every_steps: int) -> None:
        """Keep the settings.

        Args:
            every_steps: steps between two rows; a row waits for the device.
        """
        self.every_steps = every_steps
        self._time, self._step, self._num_images = time.monotonic(), 0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, and drop what was logged after the checkpoint that we go on from."""
        self._time, self._step, self._num_images = time.monotonic(), trainer.global_step, 0
        for logger in trainer.loggers:
            if isinstance(logger, MetricsLog):
                logger.continue_from(trainer.global_step)

    def after_step(self, trainer: pl.Trainer, module: MocoSFL, batch: Step) -> None:
        """Log where it is due."""
        step = trainer.global_step
        record = module.record
        assert record is not None
        self._num_images += record.num_images
        # At each sync, since the next one would hide it; a sync waits for the device anyway.
        divergence = {name: float(v) for name, v in record.divergence().items()}
        if step % self.every_steps:
            if divergence:
                log_values(trainer, divergence)
            return
        values = {name: float(v) for name, v in module.metrics().items()}
        now = time.monotonic()
        seconds = now - self._time
        values["time/step_seconds"] = seconds / (step - self._step)
        values["time/images_per_second"] = self._num_images / seconds
        values |= divergence
        self._time, self._step, self._num_images = now, step, 0
        log_values(trainer, values)
        for short, name in SHOWN.items():
            if name in values:
                module.log(short, values[name], prog_bar=True, logger=False)


class Bar(TQDMProgressBar):
    """The progress bar, without Lightning's words for epochs: one epoch is the whole run."""

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Name the bar."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description("training")

    def get_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Leave out Lightning's version number."""
        items = super().get_metrics(*args, **kwargs)
        items.pop("v_num", None)
        return dict(items)
