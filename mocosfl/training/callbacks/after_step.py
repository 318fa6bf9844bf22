"""What the callbacks that act after each step have in common: Lightning's hook in our types."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from mocosfl.federation.step_input import Step
from mocosfl.training.module import MocoSFL


class AfterStep(Callback):
    """A callback that acts after each step; `trainer.global_step` counts that step already."""

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Step,
        batch_idx: int,
    ) -> None:
        """Act on the step (Lightning's hook)."""
        assert isinstance(pl_module, MocoSFL)
        self.after_step(trainer, pl_module, batch)

    def after_step(self, trainer: pl.Trainer, module: MocoSFL, batch: Step) -> None:
        """Act on the step that has just been taken."""
        raise NotImplementedError
