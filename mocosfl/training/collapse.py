"""Going back from a collapse to the last good checkpoint, with a weaker regulariser.

A run's folder keeps a record of it, so that a run that is killed and resumed goes on with the same
alpha and learning rates as if it had never stopped.
"""

import json
import logging
from typing import NamedTuple

from mocosfl.config.choices import LEARNING
from mocosfl.config.schema import Config
from mocosfl.runs.checkpoint import read_checkpoint
from mocosfl.runs.checkpoint_content import STEP
from mocosfl.runs.folder import RunFolder
from mocosfl.system.files import write_atomically

log = logging.getLogger(__name__)


class Collapse(NamedTuple):
    """A collapse that the run has gone back from."""

    step: int  # at which it was seen
    back_to: int  # step of the checkpoint to go on from; 0: the start


def read_collapses(folder: RunFolder) -> list[Collapse]:
    """Return the collapses that a run has gone back from; [] without."""
    if not folder.collapses.is_file():
        return []
    return [Collapse(**record) for record in json.loads(folder.collapses.read_text())]


def go_back(config: Config, folder: RunFolder, step: int) -> bool:
    """Prepare a run's folder for another try.

    Last.ckpt holds the last state that did not look collapsed. A second collapse from the same
    state means that it was on its way already: the run then begins again.

    Args:
        config: of the run.
        folder: of the run.
        step: at which it collapsed.

    Returns:
        Whether there is another try; False once taressfl.max_collapses are used up, and where it
        would be the same again.
    """
    before = read_collapses(folder)
    if len(before) >= config.taressfl.max_collapses or not _would_change(config):
        return False
    back_to = read_checkpoint(folder.last)[STEP] if folder.last.is_file() else 0
    if before and before[-1].back_to == back_to:
        # Before the record: a kill in between begins again with the old settings, and comes here.
        folder.last.unlink(missing_ok=True)
        back_to = 0
    if folder.best.is_file() and read_checkpoint(folder.best)[STEP] > back_to:
        folder.best.unlink()  # of steps that are taken back
    records = [*before, Collapse(step, back_to)]
    text = json.dumps([record._asdict() for record in records], indent=2)
    write_atomically(folder.collapses, text + "\n")
    log.warning(
        "COLLAPSED at step %d: going back to step %d (%d of %d tries). %s",
        step,
        back_to,
        len(records),
        config.taressfl.max_collapses,
        describe_collapses(config, len(records)),
    )
    return True


def describe_collapses(config: Config, number: int) -> str:
    """Return the settings that apply after a number of collapses, in words."""
    settings = config.taressfl
    parts = []
    if settings.mode in LEARNING:
        alpha = settings.alpha * settings.collapse_alpha_factor**number
        parts.append(f"taressfl.alpha is {alpha:.4g}")
    scale = settings.collapse_lr_factor**number
    if scale != 1:
        parts.append(f"the learning rates are {scale:.4g} of theirs")
    return f"From here on {' and '.join(parts)}"


def _would_change(config: Config) -> bool:
    """Return whether another try differs: randomness is a function of the step, so else not."""
    settings = config.taressfl
    weaker = settings.mode in LEARNING and settings.alpha > 0 and settings.collapse_alpha_factor < 1
    return weaker or settings.collapse_lr_factor < 1
