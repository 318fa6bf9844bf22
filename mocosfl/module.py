"""The LightningModule: a training step as the paper has it."""

from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mocosfl.averaging import Spread
from mocosfl.federation import Federation, make_optimizer
from mocosfl.saving import CommunicationSaving, Traffic
from mocosfl.schedule import published_client_factor, round_factor
from mocosfl.server import ServerOutput, SupervisedServer
from mocosfl.step import Step


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
        saving: CommunicationSaving | None = None,
    ) -> None:
        """Keep the parts.

        Args:
            federation: clients and server.
            optimizer: learning rates and their course.
            num_rounds: rounds of the whole run, the period of the schedules.
            steps_per_round: S.
            config: the run's resolved configuration, plain values; goes into each checkpoint.
            saving: of communication; None for all traffic in each round.
        """
        super().__init__()
        self.federation = federation
        self.optimizer_settings = optimizer
        self.num_rounds, self.steps_per_round = num_rounds, steps_per_round
        self.config = config
        self.saving = saving
        self._sync_due = False
        self._places: Tensor | None = None  # of the clients that are there, None for all
        self._rates: dict[str, float] = {}
        self.last_output: ServerOutput | None = None
        self.last_spread: Spread | None = None  # of the sync behind the last step

    def on_train_batch_start(self, batch: Step, batch_idx: int) -> None:
        """Bring the round's pool in."""
        if batch.new_round:
            self.federation.clients.enter(batch.pool, self._optimizer())
            if self.saving is not None:
                self.saving.start_round(batch.round)
        # Heads that stood still are as equal as after the last sync.
        self._sync_due = batch.sync_due and self.traffic is Traffic.all
        places = torch.cat([group.places for group in batch.groups])
        self._places = None if len(places) == len(batch.pool) else places

    def training_step(self, batch: Step, batch_idx: int) -> Tensor:
        """Run heads, trunk and loss; Lightning's backward gives every client its own gradient."""
        if self.saving is None:
            output: ServerOutput = self.federation(batch)
        else:
            output = self.saving.run(self.federation, batch, self.steps_per_round)
        self.last_output = ServerOutput(*(value.detach() for value in output))
        # The schedule moves on before the callbacks come; these are the rates of this step.
        self._rates = {group["name"]: group["lr"] for group in self._optimizer().param_groups}
        return output.loss

    @property
    def traffic(self) -> Traffic:
        """What travels in this round."""
        return Traffic.all if self.saving is None else self.saving.traffic

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
        with self.federation.clients.sparing(self._places, self._optimizer()):
            # The closure runs in here: forward pass and backward too.
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.last_spread = self.federation.synchronise(self._places) if self._sync_due else None

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
        factors = [self._factor(group["name"]) for group in optimizer.param_groups]
        scheduler = LambdaLR(optimizer, factors)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _factor(self, side: str) -> Any:
        """Return the learning rate's factor of a side as a function of the step."""
        settings = self.optimizer_settings
        if side == "clients" and settings.client_schedule == "published":
            return published_client_factor(self.num_rounds)
        decay = settings.step_decay_server if side == "server" else settings.step_decay_client
        factor = round_factor(settings.schedule, num_rounds=self.num_rounds, decay=decay)
        return lambda step: factor(step // self.steps_per_round)

    def metrics(self, round_index: int) -> dict[str, Tensor | float]:
        """Return what is logged of the last step, by name; tensors stay on the device."""
        output = self.last_output
        assert output is not None
        server = self.federation.server
        supervised = isinstance(server, SupervisedServer)
        values: dict[str, Tensor | float] = {
            "train/loss": output.loss,
            "train/accuracy" if supervised else "train/contrast_accuracy": output.accuracy,
            "train/embedding_std": output.embedding_std,
            "train/round": round_index,
        }
        if self.saving is not None:
            values["train/traffic"] = list(Traffic).index(self.traffic)  # 0 A, 1 B, 2 C
        return values | {f"lr/{name}": rate for name, rate in self._rates.items()}

    def divergence(self) -> dict[str, Tensor]:
        """Return how far the heads were apart at the sync behind the last step; {} without one."""
        if self.last_spread is None:
            return {}
        return {f"sync/divergence_{name}": v for name, v in self.last_spread._asdict().items()}

    def _optimizer(self) -> Optimizer:
        optimizer: Optimizer = self.optimizers().optimizer  # type: ignore[union-attr]
        return optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the configuration in, as plain values; an encoder alone needs no client bank."""
        checkpoint["config"] = self.config
        if "optimizer_states" not in checkpoint:
            del checkpoint["state_dict"]["federation.clients._extra_state"]
        elif self.saving is not None:
            checkpoint["saving"] = self.saving.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what is no tensor of a module."""
        if self.saving is not None:
            self.saving.load_state_dict(checkpoint["saving"])
            self.saving.check_store(self.steps_per_round)

    @property
    def uniform_loss(self) -> float:
        """Loss of embeddings that tell nothing, nats."""
        return self.federation.server.uniform_loss
