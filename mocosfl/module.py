"""The LightningModule: a training step as the paper has it."""

from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mocosfl.data.step import Step
from mocosfl.federation import Federation, make_optimizer
from mocosfl.schedule import published_client_factor, round_factor
from mocosfl.server import ServerOutput


class OptimizerSettings(NamedTuple):
    """SGD and its schedule; the fields are those of `optimizer=` in the configuration."""

    server_lr: float
    client_lr: float
    momentum: float
    weight_decay: float
    schedule: str
    client_schedule: str
    step_decay_server: float
    step_decay_client: float


class MocoSFL(pl.LightningModule):
    """Trains a federation; what it trains on arrives as `Step`s.

    One Lightning epoch is the whole run and `global_step` counts steps; rounds are in the steps.
    """

    def __init__(
        self,
        federation: Federation,
        optimizer: OptimizerSettings,
        *,
        num_rounds: int,
        steps_per_round: int,
        config: dict[str, Any],
    ) -> None:
        """Keep the parts.

        Args:
            federation: clients and server.
            optimizer: learning rates and their course.
            num_rounds: rounds of the whole run, the period of the schedules.
            steps_per_round: S.
            config: the run's resolved configuration, plain values; goes into each checkpoint.
        """
        super().__init__()
        self.federation = federation
        self.optimizer_settings = optimizer
        self.num_rounds, self.steps_per_round = num_rounds, steps_per_round
        self.config = config
        self._sync_due = False
        self._rates: dict[str, float] = {}
        self.last_output: ServerOutput | None = None

    def on_train_batch_start(self, batch: Step, batch_idx: int) -> None:
        """Bring the round's pool in."""
        if batch.new_round:
            self.federation.clients.enter(batch.pool, self._optimizer())
        self._sync_due = batch.sync_due

    def training_step(self, batch: Step, batch_idx: int) -> Tensor:
        """Run heads, trunk and loss; Lightning's backward gives every client its own gradient."""
        output: ServerOutput = self.federation(batch.view1, batch.view2)
        self.last_output = ServerOutput(*(value.detach() for value in output))
        # The schedule moves on before the callbacks come; these are the rates of this step.
        self._rates = {group["name"]: group["lr"] for group in self._optimizer().param_groups}
        return output.loss

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Any = None,
    ) -> None:
        """Step server and clients, then average the heads where that is due.

        Here and not in `on_train_batch_end`, which comes after the checkpoint callbacks.
        """
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self._sync_due:
            self.federation.synchronise()

    def configure_optimizers(self) -> Any:
        """Return one SGD over server and clients, its schedule stepped once a step."""
        settings = self.optimizer_settings
        optimizer = make_optimizer(
            self.federation,
            server_lr=settings.server_lr,
            client_lr=settings.client_lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        factors = [self._by_round(settings.step_decay_server)]
        if len(optimizer.param_groups) == 2:
            published = settings.client_schedule == "published"
            factors.append(
                published_client_factor(self.num_rounds)
                if published
                else self._by_round(settings.step_decay_client)
            )
        scheduler = LambdaLR(optimizer, factors)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _by_round(self, decay: float) -> Any:
        kind = self.optimizer_settings.schedule
        factor = round_factor(kind, num_rounds=self.num_rounds, decay=decay)
        return lambda step: factor(step // self.steps_per_round)

    def metrics(self, round_index: int) -> dict[str, Tensor | float]:
        """Return what is logged of the last step, by name; tensors stay on the device."""
        output = self.last_output
        assert output is not None
        values: dict[str, Tensor | float] = {
            "train/loss": output.loss,
            "train/contrast_accuracy": output.contrast_accuracy,
            "train/embedding_std": output.embedding_std,
            "train/round": round_index,
        }
        return values | {f"lr/{name}": rate for name, rate in self._rates.items()}

    def _optimizer(self) -> Optimizer:
        optimizer: Optimizer = self.optimizers().optimizer  # type: ignore[union-attr]
        return optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the configuration in, as plain values; an encoder alone needs no client bank."""
        checkpoint["config"] = self.config
        if "optimizer_states" not in checkpoint:
            del checkpoint["state_dict"]["federation.clients._extra_state"]

    @property
    def uniform_loss(self) -> float:
        """Loss of embeddings that tell nothing, nats: ln(keys + 1) a pass."""
        server = self.federation.server
        passes = 2 if server.two_sided else 1
        return passes * float(torch.tensor(server.queue.length + 1.0).log())
