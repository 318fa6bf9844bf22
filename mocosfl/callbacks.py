"""What happens around the training steps: checkpoints, the kNN monitor, the alarms, the bar."""

import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from torch import nn

from mocosfl.alarm import Alarm, is_last_step
from mocosfl.config import Config, FeatureKind
from mocosfl.data.federated_data import FederatedData
from mocosfl.evaluation.features import extract_features
from mocosfl.evaluation.knn import knn_top1, leave_one_out_top1
from mocosfl.metrics_log import MetricsLog
from mocosfl.module import MocoSFL
from mocosfl.ranks import Ranks

log = logging.getLogger(__name__)

KNN_BATCH_IMAGES = 500
# What the progress bar shows beside the kNN monitor: its short name -> the logged one.
SHOWN = {
    "loss": "train/loss",
    "contrast_accuracy": "train/contrast_accuracy",
    "accuracy": "train/accuracy",
    "images/s": "time/images_per_second",
}


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: a kill never leaves half of one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Save to `path`."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)


def log_values(trainer: pl.Trainer, values: dict[str, float]) -> None:
    """Send values to all loggers, at the step that has just ended, and how far the run is."""
    module = trainer.lightning_module
    assert isinstance(module, MocoSFL)
    values = values | module.progress
    for logger in trainer.loggers:
        logger.log_metrics(values, step=trainer.global_step - 1)


def save_if_finite(trainer: pl.Trainer, path: Path, *, weights_only: bool) -> None:
    """Write a checkpoint, unless a NaN in the weights would replace a good one.

    Of several processes all call this at the same step.
    """
    module = trainer.lightning_module
    assert isinstance(module, MocoSFL)
    finite = all(bool(p.isfinite().all()) for p in module.parameters())
    if module.federation.ranks.all_agree(finite):
        trainer.save_checkpoint(path, weights_only=weights_only)


class LastCheckpoint(Callback):
    """Keeps `last.ckpt` current: every so many steps or minutes, and at the end.

    Of several processes the first one's clock decides. They ask it every `ask_every_steps`, because
    asking at each step would make each wait for it.
    """

    def __init__(
        self,
        path: Path,
        *,
        every_steps: int,
        every_minutes: float,
        ask_every_steps: int = 1,
        unless_suspicious: Alarm | None = None,
    ) -> None:
        """Keep the settings.

        Args:
            path: the file.
            every_steps: steps between two checkpoints, at least 1.
            every_minutes: minutes between two checkpoints, above 0.
            ask_every_steps: steps between two looks at the clock of several processes.
            unless_suspicious: nothing is saved while this alarm suspects a collapse, so that the
                file stays good; it comes earlier among the callbacks.
        """
        self.path, self.every_steps, self.every_seconds = path, every_steps, 60 * every_minutes
        self.alarm, self.ask_every_steps = unless_suspicious, ask_every_steps
        self._last_time = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._last_time = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save where it is due."""
        step = trainer.global_step
        if self.alarm is not None and self.alarm.suspicious_since is not None:
            return
        assert isinstance(pl_module, MocoSFL)
        due = is_last_step(trainer) or step % self.every_steps == 0
        if due or self._late(step, pl_module.federation.ranks):
            save_if_finite(trainer, self.path, weights_only=False)
            self._last_time = time.monotonic()

    def _late(self, step: int, ranks: Ranks) -> bool:
        if ranks.number > 1 and step % self.ask_every_steps:
            return False
        late = time.monotonic() - self._last_time >= self.every_seconds
        return bool(ranks.decided_by_first(late))


class KnnMonitor(Callback):
    """Classifies training images by their neighbours; keeps the best checkpoint by it.

    Test images are never looked at.
    """

    def __init__(
        self, config: Config, best: Path, *, unless_suspicious: Alarm | None = None
    ) -> None:
        """Keep the settings.

        Args:
            config: of the run.
            best: file of the best checkpoint.
            unless_suspicious: no best checkpoint is saved while this alarm suspects a collapse.
        """
        self.alarm = unless_suspicious
        self.config, self.settings, self.best_path = config, config.callbacks, best
        self.best_top1 = -1.0

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into the checkpoint."""
        return {"best_top1": self.best_top1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from the checkpoint."""
        # After a return from a collapse the file may be gone with the steps that it was of.
        self.best_top1 = state_dict["best_top1"] if self.best_path.is_file() else -1.0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measure at the end of the rounds where it is due, and of the run."""
        step = trainer.global_step
        assert isinstance(pl_module, MocoSFL)
        every = self.settings.knn_every_rounds
        due = every and step % (every * pl_module.steps_per_round) == 0
        if not (every and (due or is_last_step(trainer))):
            return
        start = time.monotonic()
        top1 = self.measure(trainer.datamodule.data, pl_module)  # type: ignore[attr-defined]
        seconds = time.monotonic() - start
        log_values(trainer, {"val/knn_top1": top1, "val/knn_seconds": seconds})
        pl_module.log("kNN", top1, prog_bar=True, logger=False)
        log.info("step %d: kNN %.2f %% (%.1f s)", step, 100 * top1, seconds)
        suspicious = self.alarm is not None and self.alarm.suspicious_since is not None
        if top1 > self.best_top1 and not suspicious:
            self.best_top1 = top1
            save_if_finite(trainer, self.best_path, weights_only=True)

    def measure(self, data: FederatedData, module: MocoSFL) -> float:
        """Return the monitor's top-1, a fraction.

        Of several processes all call this; the first one measures and the others wait for it.
        """
        encoder, ranks = self._encoder(module), module.federation.ranks
        top1 = self._top1(encoder, data, module.device) if ranks.rank == 0 else None
        return float(ranks.decided_by_first(top1))

    def _top1(self, encoder: nn.Module, data: FederatedData, device: torch.device) -> float:
        bank, queries = data.monitor
        labels = torch.from_numpy(np.asarray(data.dataset.train.labels))
        bank_features = self._features(encoder, data, bank, device)
        settings: dict[str, Any] = {
            "num_neighbors": self.settings.knn_num_neighbors,
            "temperature": self.settings.knn_temperature,
            "num_classes": self.config.dataset.num_classes,
        }
        if queries is None:
            return leave_one_out_top1(bank_features, labels[bank], **settings)
        features = self._features(encoder, data, queries, device)
        return knn_top1(features, labels[queries], bank_features, labels[bank], **settings)

    def _encoder(self, module: MocoSFL) -> nn.Module:
        encoder = module.federation.encoder()
        if self.settings.knn_features is FeatureKind.projection:
            return nn.Sequential(*encoder, module.federation.projector())
        return encoder

    def _features(
        self, encoder: nn.Module, data: FederatedData, indices: Any, device: torch.device
    ) -> torch.Tensor:
        return extract_features(
            encoder,
            data.dataset.train.images[indices],
            mean=list(self.config.dataset.mean),
            std=list(self.config.dataset.std),
            batch_size=KNN_BATCH_IMAGES,
            device=device,
        )


class Curves(Callback):
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

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log where it is due."""
        step = trainer.global_step
        assert isinstance(pl_module, MocoSFL)
        self._num_images += pl_module.num_images
        # At each sync, since the next one would hide it; a sync waits for the device anyway.
        divergence = {name: float(v) for name, v in pl_module.divergence().items()}
        if step % self.every_steps:
            if divergence:
                log_values(trainer, divergence)
            return
        values = {name: float(v) for name, v in pl_module.metrics().items()}
        now = time.monotonic()
        seconds = now - self._time
        values["time/step_seconds"] = seconds / (step - self._step)
        values["time/images_per_second"] = self._num_images / seconds
        values |= divergence
        self._time, self._step, self._num_images = now, step, 0
        log_values(trainer, values)
        for short, name in SHOWN.items():
            if name in values:
                pl_module.log(short, values[name], prog_bar=True, logger=False)


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
