"""Reading the runs of a sweep from their folders, without torch.

A run is a folder with a config.yaml of ours, at any depth, or one that holds only why its job
failed. What a run has not written is None.
"""

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from mocosfl.config.identity import FREE_KEYS
from mocosfl.config.methods import method_of
from mocosfl.report.paths_in_words import shown_words
from mocosfl.report.results import newest_values, result_steps_of, results_of
from mocosfl.runs.evaluation_folders import ProbeFolder
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.json_records import DamagedFile, read_record

# What tells no two runs apart: also what else has no influence on the result.
NO_INFLUENCE = (
    *FREE_KEYS,
    "trainer.accelerator", "trainer.devices", "trainer.log_every_steps", "trainer.num_threads",
    "trainer.view_block_images", "trainer.progress_bar", "trainer.profiler", "dataset.path",
    "dataset.num_workers", "dataset.download", "callbacks.checkpoint_every_steps",
    "callbacks.checkpoint_every_minutes",
    "callbacks.pictures", "callbacks.measure_client_memory", "callbacks.probe_at_end",
)  # fmt: skip
_OUR_GROUPS = {"method", "dataset", "partition", "clients", "split", "seed"}

Settings = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What one run's folder tells; accuracies are fractions."""

    name: str  # its folder, below the report's
    folder: Path
    settings: Settings  # full key -> value, without those of NO_INFLUENCE
    status: str  # finished, interrupted or failed
    message: str = ""  # why it failed
    steps: int | None = None  # done
    planned_steps: int | None = None
    results: dict[str, float | None] = field(default_factory=dict)  # by the names of RESULTS
    result_steps: dict[str, int] = field(default_factory=dict)  # done when a result was measured
    notes: str = ""  # the user's
    problems: tuple[str, ...] = ()  # files that could not be read
    damaged: frozenset[str] = frozenset()  # the names of these files

    @property
    def seed(self) -> int | None:
        """The run's seed."""
        return self.settings.get("seed")

    def base(self) -> dict[str, Any]:
        """Return what every table shows of a run's settings."""
        get = self.settings.get
        pair, cut = get("split.bottleneck_channels"), get("split.cut_layer")
        cut = "whole" if cut is None and method_of(get("method.name")).whole_network else cut
        if pair is not None and cut is not None:
            cut = f"{cut} C{pair}S{get('split.bottleneck_stride')}"
        return {
            "method": get("method.name"),
            "dataset": get("dataset.name"),
            "partition": get("partition.kind"),
            "clients": get("clients.num_clients"),
            "cut": cut,
        }


def find_runs(root: Path) -> list[Run]:
    """Read all runs in a folder, in the order of their names.

    Raises:
        FileNotFoundError: there is no such folder, or no run in it.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"folder={root}: no such folder; name the folder of a sweep or run")
    runs = [read_run(folder, root) for folder in _run_folders(root)]
    if not runs:
        raise FileNotFoundError(
            f"folder={root}: holds no run, no folder in it has a config.yaml of mocosfl; name the "
            "folder that the sweep printed, one below multirun/"
        )
    return runs


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yield the runs in a folder; what a run itself contains (probes, W&B's files) is not one."""
    run = RunFolder(folder)
    if _may_be_ours(run.config) or run.failed.is_file():
        yield folder
        return
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            yield from _run_folders(child)


def _may_be_ours(config: Path) -> bool:
    """Return whether a file is a configuration of ours, whole or damaged."""
    if not config.is_file():
        return False
    try:
        values = OmegaConf.load(config)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError):
        return True  # damaged: `read_run` says so
    return set(values) >= _OUR_GROUPS


def read_run(folder: Path, root: Path) -> Run:
    """Read one run.

    Args:
        folder: of the run.
        root: of the report; the run is named by its place below it.
    """
    run, problems = RunFolder(folder), dict[str, str]()
    name = root.resolve().name if folder == root else str(folder.relative_to(root))
    finished = _attempt(partial(read_record, counts=["step"]), run.finished, problems)
    overhead = _attempt(partial(read_record, counts=["num_steps"]), run.overhead, problems)
    probed = ProbeFolder(run.probe).results
    probe = _attempt(partial(read_record, counts=["encoder_step"]), probed, problems)
    curves = _attempt(newest_values, run.metrics, problems)
    values = _attempt(read_values, run.config, problems)
    plan = _attempt(partial(read_record, counts=["steps_to_do"]), run.plan_figures, problems)
    planned = plan.get("steps_to_do")
    logged = curves["step"].steps if "step" in curves else None
    steps = finished.get("step", overhead.get("num_steps", logged))
    if probe.get("encoder_step", steps) != steps:
        problems["probe"] = (
            f"{run.probe.name}/: is of step {probe['encoder_step']}, the run has done {steps}"
        )
    try:
        results, result_steps = results_of(probe, overhead, curves), result_steps_of(probe, curves)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        results, result_steps = {}, {}
        problems["results"] = f"results are not of the form that mocosfl writes ({error!r})"
    # finished.json wins: it is what a sweep skips a job for, damaged or not.
    done = run.finished.is_file()
    failed = not done and run.failed.is_file()
    return Run(
        name=name,
        folder=folder,
        settings=shaping(values),
        status="finished" if done else "failed" if failed else "interrupted",
        message=_message(run, values) if failed else "",
        steps=steps,
        planned_steps=planned,
        results=results,
        result_steps=result_steps,
        notes=str(values.get("notes") or "").strip(),
        problems=tuple(f"{name}: {problem}" for problem in problems.values()),
        damaged=frozenset(problems),
    )


def _message(run: RunFolder, values: Settings) -> str:
    """Return why a run failed, without the machine's paths."""
    return shown_words(run.failed.read_text(errors="replace").strip(), run.path, values.values())


def _attempt(
    read: Callable[[Path], dict[str, Any]], path: Path, problems: dict[str, str]
) -> dict[str, Any]:
    """Read a file, {} without one; a damaged one is noted, and the others are still read."""
    if not path.is_file():
        return {}
    try:
        return read(path)
    except (ValueError, OSError) as error:
        reason = error.reason if isinstance(error, DamagedFile) else error
        problems[path.name] = f"{path.name} is {reason}"
        return {}


def read_values(config: Path) -> Settings:
    """Return a config.yaml as full key -> value.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        values = OmegaConf.to_container(OmegaConf.load(config), resolve=False)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"not readable ({type(error).__name__})") from error
    flat = dict(_flat(values, ""))
    if not isinstance(flat.get("clients.num_clients", 0), int):
        raise ValueError("not of the form that mocosfl writes (clients.num_clients)")
    return flat


def shaping(values: Settings) -> Settings:
    """Return the values that may shape a result: without NO_INFLUENCE."""
    return {
        key: value
        for key, value in values.items()
        if not any(key == free or key.startswith(f"{free}.") for free in NO_INFLUENCE)
    }


def _flat(values: Any, where: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(values, dict):
        yield where, values
        return
    for key, value in values.items():
        yield from _flat(value, f"{where}.{key}" if where else str(key))


class Mean(NamedTuple):
    """Finished runs that differ in the seed alone."""

    runs: list[Run]

    def spread(self, name: str) -> tuple[float, float, int] | None:
        """Return mean, standard deviation (of a sample; NaN of one) and number of a result."""
        values = [v for run in self.runs if (v := run.results.get(name)) is not None]
        if not values:
            return None
        deviation = statistics.stdev(values) if len(values) > 1 else math.nan
        return statistics.fmean(values), deviation, len(values)
