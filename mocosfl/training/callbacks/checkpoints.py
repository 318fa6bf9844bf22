"""Checkpoints: written safely, and only of a finite state."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO

from mocosfl.federation.ranks import Ranks
from mocosfl.federation.step_input import Step
from mocosfl.system.files import replaced_file
from mocosfl.training.callbacks.after_step import AfterStep
from mocosfl.training.callbacks.alarm import Alarm, is_last_step
from mocosfl.training.module import MocoSFL


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: a kill never leaves half of one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Save to `path`."""
        with replaced_file(Path(path)) as file:
            torch.save(checkpoint, file)


def save_if_finite(trainer: pl.Trainer, path: Path, *, weights_only: bool) -> None:
    """Write a checkpoint, unless a NaN in the weights would replace a good one.

    Of several processes all call this at the same step.
    """
    module = trainer.lightning_module
    assert isinstance(module, MocoSFL)
    finite = all(bool(p.isfinite().all()) for p in module.parameters())
    if module.federation.ranks.all_agree(finite):
        trainer.save_checkpoint(path, weights_only=weights_only)


class LastCheckpoint(AfterStep):
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

    def after_step(self, trainer: pl.Trainer, module: MocoSFL, batch: Step) -> None:
        """Save where it is due."""
        step = trainer.global_step
        if self.alarm is not None and self.alarm.suspicious_since is not None:
            return
        due = is_last_step(trainer) or step % self.every_steps == 0
        if due or self._late(step, module.federation.ranks):
            save_if_finite(trainer, self.path, weights_only=False)
            self._last_time = time.monotonic()

    def _late(self, step: int, ranks: Ranks) -> bool:
        if ranks.number > 1 and step % self.ask_every_steps:
            return False
        late = time.monotonic() - self._last_time >= self.every_seconds
        return bool(ranks.decided_by_first(late))
