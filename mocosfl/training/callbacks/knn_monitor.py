"""The kNN monitor, and the best checkpoint by it."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

from mocosfl.config.choices import FeatureKind
from mocosfl.config.schema import Config
from mocosfl.data.federated_data import FederatedData
from mocosfl.evaluation.features import extract_features
from mocosfl.evaluation.knn import knn_top1, leave_one_out_top1
from mocosfl.federation.step_input import Step
from mocosfl.training.callbacks.after_step import AfterStep
from mocosfl.training.callbacks.alarm import Alarm, is_last_step
from mocosfl.training.callbacks.checkpoints import save_if_finite
from mocosfl.training.callbacks.step_log import log_values
from mocosfl.training.module import MocoSFL

log = logging.getLogger(__name__)

KNN_BATCH_IMAGES = 500


class KnnMonitor(AfterStep):
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

    def after_step(self, trainer: pl.Trainer, module: MocoSFL, batch: Step) -> None:
        """Measure at the end of the rounds where it is due, and of the run."""
        step = trainer.global_step
        every = self.settings.knn_every_rounds
        due = every and step % (every * module.steps_per_round) == 0
        if not (every and (due or is_last_step(trainer))):
            return
        start = time.monotonic()
        top1 = self.measure(trainer.datamodule.data, module)  # type: ignore[attr-defined]
        seconds = time.monotonic() - start
        log_values(trainer, {"val/knn_top1": top1, "val/knn_seconds": seconds})
        module.log("kNN", top1, prog_bar=True, logger=False)
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
