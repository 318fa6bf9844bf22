"""A run from its configuration to its last checkpoint."""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mocosfl.config.identity import FREE_ON_RESUME, changed_keys, copy_keys
from mocosfl.config.schema import Config
from mocosfl.overhead.plan_in_words import describe_plan
from mocosfl.rules.machine import check_machine
from mocosfl.rules.validate import validate
from mocosfl.runs.checkpoint import check_same_run
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.resuming import how_to_go_on, shown
from mocosfl.system.errors import Collapsed
from mocosfl.training.collapse import go_back
from mocosfl.training.cpu_settings import cpu_settings
from mocosfl.training.deployment import SIMULATION, Deployment
from mocosfl.training.inputs import read_inputs
from mocosfl.training.preflight import (
    check_disk,
    check_fresh,
    check_memory,
    check_partition,
    check_probe,
    check_steps,
)

if TYPE_CHECKING:
    from mocosfl.training.module import MocoSFL

log = logging.getLogger(__name__)


def train(
    config: Config, folder: RunFolder, *, resume: bool, deployment: Deployment = SIMULATION
) -> "MocoSFL":
    """Train a federation, or go on with one.

    Args:
        config: of the run; checked here.
        folder: where the run writes.
        resume: go on from the folder's last checkpoint.
        deployment: where the clients are.

    Returns:
        The trained module; of several processes the first one's, with its own clients' heads.

    Raises:
        ValueError, FileNotFoundError: the configuration or the data are wrong; the message says
            what to do.
        TrainingStopped: the loss is not finite, or the run collapsed.
        WorkerFailed: a further process (trainer.devices) has failed.
    """
    with _ready(config, folder):
        return _train_through_collapses(config, folder, deployment, resume=resume)


def train_unless_finished(config: Config, folder: RunFolder) -> "MocoSFL | None":
    """Do what a run's folder calls for: start the run, go on with it, or leave it alone.

    Decided under the folder's lock, so that of several processes one alone trains.

    Args:
        config: of the run; checked here. Equal to the one that the folder's run began with, but
            for `FREE_KEYS`: a sweep's folders are named after their configuration.
        folder: where the run writes.

    Returns:
        The trained module; None where the run had finished before.

    Raises:
        FolderBusy: another process is running there.
        ValueError, FileNotFoundError, TrainingStopped: as `train`.
    """
    with _ready(config, folder):
        if folder.finished.is_file():
            return None
        # A kill before config.yaml was complete leaves none: it is renamed into place.
        resume = folder.config.is_file()
        return _train_through_collapses(config, folder, SIMULATION, resume=resume)


@contextmanager
def _ready(config: Config, folder: RunFolder) -> Iterator[None]:
    """Check the configuration, set the CPU up for it and keep other processes from the folder."""
    validate(config)
    check_machine(config)
    with cpu_settings(config), folder.locked():
        yield


def _train_through_collapses(
    config: Config, folder: RunFolder, deployment: Deployment, *, resume: bool
) -> "MocoSFL":
    """Train; after a collapse go back to the last good checkpoint, as often as is allowed."""
    while True:
        try:
            return _train(config, folder, deployment, resume=resume)
        except KeyboardInterrupt:  # before the first step or behind the last
            if folder.config.is_file():
                log.info("interrupted: %s", how_to_go_on(config, folder))
            raise
        except Collapsed as collapse:
            if not go_back(config, folder, collapse.step):
                raise
            resume = True


def _train(config: Config, folder: RunFolder, deployment: Deployment, *, resume: bool) -> "MocoSFL":
    start = time.monotonic()
    deployment.check(config)
    if not resume:
        check_fresh(folder)
    checkpoint = _checkpoint(folder, config) if resume else None
    data, plan, expert = read_inputs(config, folder, resumes=checkpoint is not None)
    check_steps(config, plan)
    check_probe(config, data)
    check_disk(config, folder, plan)
    check_memory(config, plan)
    log.info("the plan\n%s", describe_plan(config, plan))
    # Imported here: Lightning and matplotlib take seconds, and the plan need not wait for them.
    from mocosfl.training.fit import fit
    from mocosfl.training.run_files import closing_words, write_start

    if checkpoint is None:
        write_start(config, folder, data, plan, with_views=deployment.sees_images)
    else:
        check_partition(folder, data)
        _note_free_keys(config, folder)
    folder.failed.unlink(missing_ok=True)  # of an earlier try; nothing has refused this one
    module = fit(
        config,
        folder,
        data,
        plan,
        deployment=deployment,
        checkpoint=checkpoint,
        expert=expert,
        start=start,
    )
    shutil.rmtree(folder.smashed, ignore_errors=True)  # gigabytes that nobody will replay
    has_test_images = data.dataset.test is not None
    words = closing_words(config, folder, has_test_images=has_test_images)
    log.info("done: %s\n%s", shown(folder.path), words)
    return module


def _checkpoint(folder: RunFolder, config: Config) -> Path | None:
    """Return the checkpoint to go on from; None if the run was stopped before its first."""
    if not folder.last.is_file():
        log.info("no checkpoint yet in %s: starting at step 0", folder.path)
        return None
    check_same_run(folder.last, config)
    return folder.last


def _note_free_keys(config: Config, folder: RunFolder) -> None:
    """Let config.yaml say how a run goes on: with how many processes, listening where."""
    recorded = folder.load_config()
    changed = changed_keys(config, recorded, FREE_ON_RESUME)
    for key, (now, before) in changed.items():
        log.info("the run goes on with %s=%s, so far %s", key, now, before)
    if changed:
        copy_keys(config, recorded, changed)
        folder.save_config(recorded)
