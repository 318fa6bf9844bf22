"""The alarm that stops a run which diverged or collapsed."""

import math
from typing import Any

import pytorch_lightning as pl

from mocosfl.federation.step_input import Step
from mocosfl.runs.checkpoint_content import ALARM, SUSPICIOUS_SINCE
from mocosfl.system.errors import Collapsed, TrainingStopped
from mocosfl.training.callbacks.after_step import AfterStep
from mocosfl.training.module import MocoSFL


def is_last_step(trainer: pl.Trainer) -> bool:
    """Return whether the run ends with the step that has just been taken."""
    return trainer.global_step == trainer.max_steps


def _advice(module: MocoSFL) -> str:
    advice = module.federation.server.advice
    return advice if module.attackers is None else f"Lower taressfl.alpha. {advice}"


class Alarm(AfterStep):
    """Stops a run whose loss is not finite, or that has collapsed.

    Collapsed: for `window_steps` in a row the loss is within `loss_margin` of what embeddings
    that tell nothing would give, or the embeddings have no spread.
    """

    def __init__(
        self,
        *,
        every_steps: int,
        window_steps: int,
        loss_margin: float,
        min_std: float,
        strict_end: bool = False,
    ) -> None:
        """Keep the settings.

        Args:
            every_steps: steps between two looks; a look waits for the device.
            window_steps: how long a collapse must last; 0: no alarm for it.
            loss_margin: nats a pass.
            min_std: of the embeddings' spread times sqrt(D), which is 1 for evenly spread ones.
            strict_end: a run that looks collapsed at its last step counts as collapsed, however
                short that has lasted.
        """
        self.every_steps, self.window_steps = every_steps, window_steps
        self.loss_margin, self.min_std, self.strict_end = loss_margin, min_std, strict_end
        self.suspicious_since: int | None = None

    @property
    def state_key(self) -> str:
        """Name of its part in the checkpoint."""
        return ALARM

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into the checkpoint."""
        return {SUSPICIOUS_SINCE: self.suspicious_since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from the checkpoint."""
        self.suspicious_since = state_dict[SUSPICIOUS_SINCE]

    def after_step(self, trainer: pl.Trainer, module: MocoSFL, batch: Step) -> None:
        """Look at the last step.

        Raises:
            TrainingStopped: the loss is not finite.
            Collapsed: the run has collapsed.
        """
        step = trainer.global_step
        record = module.record
        if step % self.every_steps and not is_last_step(trainer):
            return
        assert record is not None
        output = record.output
        loss, std = float(output.loss), float(output.embedding_std)
        server = module.federation.server
        if not math.isfinite(loss):
            raise TrainingStopped(
                f"the loss is {loss} at step {step}: training diverged in the last "
                f"{self.every_steps} steps. Checkpoints hold the last good state. "
                f"{server.advice} (optimizer.server_lr, optimizer.client_lr)"
            )
        passes = server.num_passes
        stuck = abs(loss - module.uniform_loss) < passes * self.loss_margin
        # Not `std >= min_std`: a step of one row has no spread, and says nothing.
        if not (stuck or std < self.min_std):
            self.suspicious_since = None
            return
        if self.suspicious_since is None:
            self.suspicious_since = step
        lasted = step - self.suspicious_since
        too_long = self.window_steps and lasted >= self.window_steps
        if too_long or (self.strict_end and is_last_step(trainer)):
            raise Collapsed(
                f"the network has collapsed: for {lasted} steps the loss stays at {loss:.3f} "
                f"(outputs that tell nothing give {module.uniform_loss:.3f}) and the spread of "
                f"its outputs at {std:.4f} (evenly spread: 1). {_advice(module)}"
                + (
                    "; callbacks.collapse_window_steps=0 turns this alarm off"
                    if too_long and not self.strict_end
                    else ""
                ),
                step,
            )
