"""The LightningModule: a training step as the paper has it."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mocosfl.federation.averaging import Spread
from mocosfl.federation.federation import Federation
from mocosfl.federation.optimizer import (
    OptimizerSettings,
    make_optimizer,
    published_client_factor,
    round_factor,
)
from mocosfl.federation.saving import CommunicationSaving, Traffic
from mocosfl.federation.server import ServerOutput, SupervisedServer
from mocosfl.federation.step import Step, places_there
from mocosfl.privacy.attackers import AttackerPool, Privacy, decoder_lr_factor


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
        attackers: AttackerPool | None = None,
        lr_scale: float = 1.0,
    ) -> None:
        """Keep the parts.

        Args:
            federation: clients and server.
            optimizer: learning rates and their course.
            num_rounds: rounds of the whole run, the period of the schedules.
            steps_per_round: S.
            config: the run's resolved configuration, plain values; goes into each checkpoint.
            saving: of communication; None for all traffic in each round.
            attackers: those that the heads learn to evade (TAResSFL); None for none.
            lr_scale: factor on all learning rates of the optimizer, of a checkpoint's too.
        """
        super().__init__()
        self.federation = federation
        self.optimizer_settings = optimizer
        self.num_rounds, self.steps_per_round = num_rounds, steps_per_round
        self.config = config
        self.saving, self.attackers, self.lr_scale = saving, attackers, lr_scale
        self._sync_due = False
        self.num_images = 0  # of the last step
        # By all clients; None: not known, the checkpoint is from before they were counted.
        self.images_seen: int | None = 0
        # Of the clients that are there, None for all: in this process's stacks, and in the pool.
        self._own_places: Tensor | None = None
        self._places: Tensor | None = None
        self._rates: dict[str, float] = {}
        self.last_output: ServerOutput | None = None
        self.last_spread: Spread | None = None  # of the sync behind the last step
        self.last_privacy: Privacy | None = None

    def on_train_start(self) -> None:
        """Scale the learning rates that a checkpoint has brought."""
        if self.lr_scale == 1:
            return
        for group in self._optimizer().param_groups:
            group["lr"] = group["initial_lr"] * self._factor(group["name"])(self.global_step)

    def on_train_batch_start(self, batch: Step, batch_idx: int) -> None:
        """Bring the round's pool in."""
        self.enter(batch)
        self.take_note(batch)

    def enter(self, batch: Step) -> None:
        """Bring the pool of a step in, where it may have changed."""
        if batch.new_round:
            self.federation.clients.enter(batch.whole_pool, self._optimizer())
            if self.attackers is not None:
                self.attackers.enter(batch.pool)
            if self.saving is not None:
                self.saving.start_round(batch.round)

    def take_note(self, batch: Step) -> None:
        """Take note of who is there in a step, and of what follows it."""
        self.num_images = batch.num_images
        if self.images_seen is not None:
            self.images_seen += batch.num_images
        # Heads that stood still are as equal as after the last sync.
        self._sync_due = batch.sync_due and self.traffic is Traffic.all
        self._own_places = places_there(batch.groups, batch.pool)
        self._places = places_there(batch.all_groups, batch.whole_pool)

    def training_step(self, batch: Step, batch_idx: int) -> Tensor:
        """Run heads, trunk and loss; Lightning's backward gives every client its own gradient."""
        if self.saving is not None:
            output = self.saving.run(self.federation, batch, self.steps_per_round)
            loss = output.loss
        else:
            smashed = self.federation.smash(batch)
            output = self.federation.server(smashed)
            loss = output.loss + self._penalty(batch, smashed.query)
        self.last_output = self._of_all_rows(output)
        # The schedule moves on before the callbacks come; these are the rates of this step.
        self._rates = {group["name"]: group["lr"] for group in self._optimizer().param_groups}
        return loss

    def _of_all_rows(self, output: ServerOutput) -> ServerOutput:
        """Return a step's figures over the rows of all processes."""
        ranks = self.federation.ranks
        loss, accuracy, std = (value.detach() for value in output)
        if ranks.number > 1:  # what each has are shares, see `SmashedStep.in_shares`
            (total,) = ranks.sum([torch.stack([loss, accuracy.to(loss)])])
            loss, accuracy = total / ranks.number
        return ServerOutput(loss, accuracy, std)

    def _penalty(self, batch: Step, query: Tensor) -> Tensor | float:
        """Return what the heads pay for what their attackers can see."""
        if self.attackers is None:
            return 0.0
        views, _, groups = self.federation.views_up(batch)
        factor = decoder_lr_factor(batch.round / self.num_rounds)
        privacy: Privacy = self.attackers(query, views, groups, lr_factor=factor)
        self.last_privacy = Privacy(privacy.penalty.detach(), privacy.attacker_ssim)
        return privacy.penalty

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
        with self.federation.clients.sparing(self._own_places, self._optimizer()):
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
        factor, scale = self._unscaled_factor(side), self.lr_scale
        return factor if scale == 1 else lambda step: scale * factor(step)

    def _unscaled_factor(self, side: str) -> Any:
        settings = self.optimizer_settings
        if side == "clients" and settings.client_schedule == "published":
            return published_client_factor(self.num_rounds)
        decay = settings.step_decay_server if side == "server" else settings.step_decay_client
        factor = round_factor(settings.schedule, num_rounds=self.num_rounds, decay=decay)
        return lambda step: factor(step // self.steps_per_round)

    @property
    def progress(self) -> dict[str, float]:
        """How far the run is, by logged name, for curves over something else than steps."""
        values = {"progress/rounds": self.global_step / self.steps_per_round}
        if self.images_seen is not None:
            values["progress/images_seen"] = self.images_seen
        return values

    def metrics(self) -> dict[str, Tensor | float]:
        """Return what is logged of the last step, by name; tensors stay on the device."""
        output = self.last_output
        assert output is not None
        server = self.federation.server
        supervised = isinstance(server, SupervisedServer)
        values: dict[str, Tensor | float] = {
            "train/loss": output.loss,
            "train/accuracy" if supervised else "train/contrast_accuracy": output.accuracy,
            "train/embedding_std": output.embedding_std,
        }
        if self.last_privacy is not None:
            values["privacy/attacker_ssim"] = self.last_privacy.attacker_ssim
            values["privacy/penalty"] = self.last_privacy.penalty
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
        checkpoint["max_steps"] = self.trainer.max_steps
        checkpoint["images_seen"] = self.images_seen
        if "optimizer_states" not in checkpoint:
            state = checkpoint["state_dict"]
            del state["federation.clients._extra_state"]
            for name in [name for name in state if name.startswith("attackers.")]:
                del state[name]
        elif self.saving is not None:
            checkpoint["saving"] = self.saving.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what is no tensor of a module."""
        self.images_seen = checkpoint.get("images_seen")
        if self.saving is not None:
            self.saving.load_state_dict(checkpoint["saving"])
            self.saving.check_store(self.steps_per_round)

    @property
    def uniform_loss(self) -> float:
        """Loss of embeddings that tell nothing, nats."""
        return self.federation.server.uniform_loss
