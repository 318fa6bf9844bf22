"""The LightningModule: a training step as the paper has it."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mocosfl.federation.federation import Federation
from mocosfl.federation.optimizer import OptimizerSettings, make_optimizer, rate_factor
from mocosfl.federation.saving import CommunicationSaving, Traffic
from mocosfl.federation.server import SupervisedServer
from mocosfl.federation.step_input import Step
from mocosfl.privacy.attackers import AttackerPool, Privacy, decoder_lr_factor
from mocosfl.runs import checkpoint_content as names
from mocosfl.training.step_record import Figures, StepRecord


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
        self.images_seen = 0  # by all clients
        self.record: StepRecord | None = None  # of the last step; None before the first
        self._step: Step | None = None  # in work

    def on_train_start(self) -> None:
        """Scale the learning rates that a checkpoint has brought."""
        if self.lr_scale == 1:
            return
        for group in self._optimizer().param_groups:
            group["lr"] = group["initial_lr"] * self._factor(group["name"])(self.global_step)

    def on_train_batch_start(self, batch: Step, batch_idx: int) -> None:
        """Bring the pool of a step in."""
        self._step = self.begin(batch)
        self.images_seen += self._step.num_images

    def begin(self, batch: Step) -> Step:
        """Bring the pool of a step in, where it may have changed; returns the step to run."""
        if batch.new_round:
            self.federation.clients.enter(batch.whole_pool, self._optimizer())
            if self.attackers is not None:
                self.attackers.enter(batch.pool)
            if self.saving is not None:
                self.saving.start_round(batch.round)
        return batch

    def training_step(self, batch: Step, batch_idx: int) -> Tensor:
        """Run heads, trunk and loss; Lightning's backward gives every client its own gradient."""
        step = self.step_in_work
        if self.saving is None:
            smashed = self.federation.smash(step)
        else:
            smashed = self.saving.smash(self.federation, step, self.steps_per_round)
        output = self.federation.learn(smashed)
        if self.saving is not None:
            self.saving.note(output.loss)
        privacy = self._evade(step, smashed.query)
        self.record = StepRecord(
            output=self.federation.over_all_rows(output),
            num_images=step.num_images,
            # The schedule moves on before the callbacks come; these are the rates of this step.
            rates={group["name"]: group["lr"] for group in self._optimizer().param_groups},
            supervised=isinstance(self.federation.server, SupervisedServer),
            traffic=None if self.saving is None else self.saving.traffic,
            privacy=None if privacy is None else privacy.detached(),
        )
        return output.loss if privacy is None else output.loss + privacy.penalty

    @property
    def step_in_work(self) -> Step:
        """The step that has begun last."""
        assert self._step is not None
        return self._step

    def _evade(self, step: Step, query: Tensor) -> Privacy | None:
        """Train the attackers on a step; return what the heads pay for what these can see."""
        if self.attackers is None:
            return None
        views, _, groups = self.federation.views_up(step)
        images = self.attackers.images_of(views)
        factor = decoder_lr_factor(step.round / self.num_rounds)
        self.attackers.train_step(query.detach(), images, groups, lr_factor=factor)
        return self.attackers.penalty(query, images, groups)

    @property
    def sync_due(self) -> bool:
        """Whether the heads are averaged after the step in work."""
        # Heads that were not trained are as equal as after the last sync.
        all_traffic = self.saving is None or self.saving.traffic is Traffic.all
        return self.step_in_work.sync_due and all_traffic

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
        step = self.step_in_work
        trained = self.federation.trained_places(step)
        with self.federation.clients.sparing(trained, self._optimizer()):
            # The closure runs in here: forward pass and backward too.
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.sync_due:
            assert self.record is not None
            self.record = self.record._replace(spread=self.federation.synchronise(step.places))

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
        return rate_factor(
            self.optimizer_settings,
            side,
            num_rounds=self.num_rounds,
            steps_per_round=self.steps_per_round,
            scale=self.lr_scale,
        )

    def metrics(self) -> Figures:
        """Return what is logged of the last step, by name; tensors stay on the device."""
        assert self.record is not None
        return self.record.metrics()

    @property
    def progress(self) -> dict[str, float]:
        """How far the run is, by logged name, for curves over something else than steps."""
        return {
            "progress/rounds": self.global_step / self.steps_per_round,
            "progress/images_seen": self.images_seen,
        }

    def _optimizer(self) -> Optimizer:
        optimizer: Optimizer = self.optimizers().optimizer  # type: ignore[union-attr]
        return optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the configuration in, as plain values; an encoder alone needs no client bank."""
        checkpoint[names.CONFIG] = self.config
        checkpoint[names.MAX_STEPS] = self.trainer.max_steps
        checkpoint[names.IMAGES_SEEN] = self.images_seen
        if names.OPTIMIZERS not in checkpoint:
            state = checkpoint[names.STATE]
            for name in [name for name in state if name.startswith((names.BANK, names.ATTACKERS))]:
                del state[name]
        elif self.saving is not None:
            checkpoint[names.SAVING] = self.saving.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what is no tensor of a module."""
        self.images_seen = checkpoint[names.IMAGES_SEEN]
        if self.saving is not None:
            self.saving.load_state_dict(checkpoint[names.SAVING])
            self.saving.check_store(self.steps_per_round)

    @property
    def uniform_loss(self) -> float:
        """Loss of embeddings that tell nothing, nats."""
        return self.federation.server.uniform_loss
