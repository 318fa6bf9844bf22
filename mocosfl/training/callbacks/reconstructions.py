"""Pictures of what the simulated attackers see, as training goes."""

import logging
from pathlib import Path

import pytorch_lightning as pl
import torch

from mocosfl.federation.step_input import Step
from mocosfl.pictures.reconstructions import draw_reconstructions
from mocosfl.privacy.ssim import ssim
from mocosfl.runs.folder import RunFolder
from mocosfl.system.files import replaced
from mocosfl.tracking.loggers import log_picture
from mocosfl.training.callbacks.after_step import AfterStep
from mocosfl.training.callbacks.alarm import is_last_step
from mocosfl.training.module import MocoSFL

log = logging.getLogger(__name__)

NUM_SHOWN = 12

EVERY_ROUNDS = 10  # a picture; as often as the kNN monitor, beside which it is read


class Reconstructions(AfterStep):
    """Draws the first views of a step above what the clients' attackers make of them."""

    def __init__(self, folder: RunFolder) -> None:
        """Keep the run's folder, for its `attacker_pictures`."""
        self.folder = folder

    def after_step(self, trainer: pl.Trainer, module: MocoSFL, batch: Step) -> None:
        """Draw at the end of the rounds where it is due, and of the run."""
        if module.attackers is None:
            return
        due = trainer.global_step % (EVERY_ROUNDS * module.steps_per_round) == 0
        if not (due or is_last_step(trainer)):
            return
        path = self.folder.attacker_picture(batch.round + 1)
        self._draw(module, batch, path)
        step, progress = trainer.global_step - 1, module.progress
        log_picture(trainer.loggers, "privacy/reconstructions", path, step=step, progress=progress)

    def _draw(self, module: MocoSFL, batch: Step, path: Path) -> None:
        attackers, federation = module.attackers, module.federation
        assert attackers is not None
        with torch.no_grad():
            smashed = federation.smash_untrained(batch)
            images = attackers.images_of(federation.views_up(batch)[0])
            decoded = attackers.reconstruct(smashed.query.to(images), smashed.groups)
        spread = torch.linspace(0, len(images) - 1, min(NUM_SHOWN, len(images))).round().long()
        images, decoded = images[spread].cpu(), decoded[spread].cpu()
        similarity = float(ssim(decoded, images).mean())
        with replaced(path) as picture:
            draw_reconstructions(
                {"view": images, f"attacker\nSSIM {similarity:.2f}": decoded},
                picture,
                title=f"What the simulated attacker sees after round {batch.round + 1:,}",
            )
