"""Sweeps that can be stopped and started again: the jobs, and the folders they are found by.

A job's folder is named after a hash of its configuration. Whatever the order and number of the
jobs, a sweep therefore finds what it has done already, two jobs with the same settings are one run,
and a changed setting is another folder. What becomes of the jobs is told by `sweep_record`.
"""

import logging
import re
import traceback
from enum import Enum
from pathlib import Path
from typing import NamedTuple, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig

from mocosfl.config.identity import FREE_ON_RESUME, MAX_NAME, copy_keys, digest
from mocosfl.config.schema import Config
from mocosfl.runs.folder import FolderBusy, RunFolder
from mocosfl.system.errors import is_mistake, tell, words
from mocosfl.system.files import write_atomically

log = logging.getLogger(__name__)

FIXED = {  # what a sweep has once, and why it can't be swept over
    "sweep_name": "the jobs of a sweep share one folder; give it one name",
    "output_dir": "the jobs of a sweep share one folder; give one",
}
REFUSED = {
    "resume": "a sweep goes on by itself when it is started again; leave this out, or leave out -m",
    "run_dir": "each job of a sweep has a folder of its own; set output_dir and sweep_name",
}


class Outcome(Enum):
    """What became of a sweep's job."""

    finished = "finished"
    skipped = "skipped"  # it had finished before
    failed = "failed"
    elsewhere = "running elsewhere"  # another process is at work in its folder
    stopped = "stopped"  # begun, and nothing heard of since


class Result(NamedTuple):
    """What a job hands to the process that started the sweep."""

    outcome: Outcome
    reason: str = ""  # why it failed, in one line


def name_sweep(arguments: list[str]) -> list[str]:
    """Name a sweep after its experiment, so that the same command finds its folder again.

    The name becomes an argument, because that is what every launcher hands on to the jobs; with
    `experiment=a,b` no single job could tell what the sweep is called.

    Args:
        arguments: of the command line.

    Returns:
        The same, with `sweep_name=sweep_<experiment>` where there is an experiment and no name.

    Raises:
        ValueError: the arguments of a sweep would have jobs share a folder, or scatter them.
    """
    if not {"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments):
        return arguments
    given = _overrides(arguments)
    for key, rule in REFUSED.items():
        if key in given:
            raise ValueError(f"{given[key].input_line}: {rule}")
    for key, rule in FIXED.items():
        if key in given and given[key].is_sweep_override():
            raise ValueError(f"{given[key].input_line}: {rule}")
    if "sweep_name" in given or "experiment" not in given:
        return arguments
    choice = str(given["experiment"].input_line).partition("=")[2]
    name = re.sub(r"\W+", "_", choice).strip("_")
    return arguments if name == "none" else [*arguments, f"sweep_name=sweep_{name[:MAX_NAME]}"]


def _overrides(arguments: list[str]) -> dict[str, Override]:
    """Return the parsed overrides by key, without those that Hydra itself will complain of."""
    parsed: dict[str, Override] = {}
    for argument in arguments:
        if argument.startswith("-") or "=" not in argument:
            continue
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException:
            continue
        parsed[override.key_or_group] = override
    return parsed


def run_job(config: Config) -> Result:
    """Start a sweep's job, go on with it, or skip it when it has finished.

    An exception ends the job alone: its reason is returned, and goes into the folder's failed.txt
    unless the folder is another run's. A KeyboardInterrupt passes, and ends the sweep.
    """
    folder = RunFolder(Path(config.run_dir))
    try:
        _check_same_settings(config, folder)
    except Exception as error:  # nothing is written: a failed.txt would be said of the other run
        return Result(Outcome.failed, first_line(_tell_failure(folder, error)))
    try:
        outcome = _run(config, folder)
    except FolderBusy:
        # Not waited for: that could take days, and hold a place that another job could use.
        outcome = Outcome.elsewhere
    except Exception as error:
        text = _tell_failure(folder, error)
        write_atomically(folder.failed, text + "\n")
        return Result(Outcome.failed, first_line(text))
    if outcome is Outcome.skipped:
        log.info("finished already, skipped: %s", folder.path)
    if outcome is Outcome.elsewhere:
        log.info("running elsewhere, left alone: %s", folder.path)
    return Result(outcome)


def _run(config: Config, folder: RunFolder) -> Outcome:
    if folder.finished.is_file():
        return Outcome.skipped
    # Not before: importing torch takes seconds.
    from mocosfl.rules.privacy import check_overrides
    from mocosfl.training.run import train_unless_finished

    if HydraConfig.initialized():
        check_overrides(config.taressfl.mode, HydraConfig.get().overrides.task)
    trained = train_unless_finished(config, folder)
    return Outcome.skipped if trained is None else Outcome.finished


def _check_same_settings(config: Config, folder: RunFolder) -> None:
    """Keep a job out of another's folder, as with a `hydra.sweep.subdir` of the user's."""
    if not folder.config.is_file():
        return
    recorded = cast(DictConfig, folder.load_config())
    copy_keys(config, recorded, FREE_ON_RESUME)  # the job may have gone on with others
    if digest(recorded) != digest(cast(DictConfig, config)):
        raise ValueError(
            f"hydra.sweep.subdir: {folder.path} holds a run with other settings; leave "
            "hydra.sweep.subdir as it is, or choose another sweep_name"
        )


def _tell_failure(folder: RunFolder, error: Exception) -> str:
    """Tell the user why a job has failed; returns it, with the traceback of what is unexpected."""
    if is_mistake(error):
        text = words(error).strip() or type(error).__name__
        log.debug("stopped", exc_info=True)
        tell(text)
    else:
        text = f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}"
        log.exception("failed: %s", folder.path)
    return text.rstrip()


def first_line(text: str) -> str:
    """Return the first line of a reason; the rest is a traceback, or further rules broken."""
    return text.partition("\n")[0]
