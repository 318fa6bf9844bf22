"""What a run leaves on disk, and where."""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from mocosfl.config import Config, Profiler
from mocosfl.edge_config import FREE_EDGE_KEYS

# Where a run writes and how it shows itself; everything else shapes its result.
FREE_KEYS = ("run_dir", "sweep_name", "output_dir", "data_dir", "resume", "notes", "logger")

# What a run may go on with in another way: its result is the same but for rounding, and for which
# remote clients come late.
FREE_ON_RESUME = ("trainer.devices", *FREE_EDGE_KEYS)
# Keys of `trainer` that came later: runs from before go on with what they did then.
ADDED_KEYS = {
    "compile": False, "compile_mode": "default", "keep_freed_memory": False,
    "overfit_steps": 0, "profiler": Profiler.none,
}  # fmt: skip


class FolderBusy(ValueError):
    """Another process is running in the folder."""


@dataclass(frozen=True)
class RunFolder:
    """Paths in a run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The whole configuration, resolved."""
        return self.path / "config.yaml"

    @property
    def plan(self) -> Path:
        """What was printed before training."""
        return self.path / "plan.txt"

    @property
    def metrics(self) -> Path:
        """The curves."""
        return self.path / "metrics.csv"

    @property
    def partition(self) -> Path:
        """Which images each client holds."""
        return self.path / "partition.json"

    @property
    def finished(self) -> Path:
        """Written when all is done: {"step", "seconds"}, of the process that came to the end."""
        return self.path / "finished.json"

    @property
    def failed(self) -> Path:
        """Why a sweep's job has failed, until it is started again."""
        return self.path / "failed.txt"

    @property
    def collapses(self) -> Path:
        """The collapses that the run has gone back from; not there without one."""
        return self.path / "collapses.json"

    @property
    def wandb_id(self) -> Path:
        """The run's id with W&B, so that a resumed run continues its curves."""
        return self.path / "wandb_id.txt"

    @property
    def wandb_place(self) -> Path:
        """Where W&B keeps an online run: {"entity", "project"}; not there of an offline one."""
        return self.path / "wandb_place.json"

    @property
    def pictures(self) -> Path:
        """Folder of the pictures."""
        return self.path / "pictures"

    @property
    def smashed(self) -> Path:
        """Folder of a round's smashed data, where `saving=by_loss` replays them."""
        return self.path / "smashed"

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best kNN monitor, weights only."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def overhead(self) -> Path:
        """Bytes, MACs and memory of a client, written at the end."""
        return self.path / "overhead.json"

    @property
    def profile(self) -> Path:
        """Folder of what `trainer.profiler` found."""
        return self.path / "profile"

    @property
    def edge(self) -> Path:
        """Bytes of each remote client as they travelled, written at the end."""
        return self.path / "edge.json"

    @property
    def probe(self) -> Path:
        """Folder of what the probes of the last checkpoint found."""
        return self.path / "probe"

    @property
    def attack(self) -> Path:
        """Folder of what the attack on the last checkpoint's head found."""
        return self.path / "attack"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from running in this folder.

        Raises:
            FolderBusy: one does. The lock ends with its process, however that ends.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise FolderBusy(
                    f"run_dir={self.path}: another process is running in this folder; wait for "
                    "it, or choose another folder"
                ) from error
            yield

    def save_config(self, config: Config) -> None:
        """Write the resolved configuration."""
        write_atomically(self.config, OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True))

    def load_config(self) -> Config:
        """Read the configuration of the run.

        Raises:
            FileNotFoundError: the folder is not that of a run.
            ValueError: its config.yaml is not readable.
        """
        if not self.config.is_file():
            raise FileNotFoundError(
                f"run={self.path}: not a run folder, it has no config.yaml; name the folder that "
                "the run printed, one below multirun/"
            )
        schema = OmegaConf.structured(Config)
        try:
            return with_added_keys(OmegaConf.merge(schema, OmegaConf.load(self.config)))
        except (OmegaConfBaseException, YAMLError) as error:
            raise ValueError(
                f"{self.config}: not a configuration of this version of mocosfl ({error}); put it "
                "back as it was"
            ) from error


def copy_keys(source: Any, target: Any, keys: Iterable[str]) -> None:
    """Give a configuration the values that another has under some full keys, in place.

    A group that one of them does not have (`edge`, in a simulation) is left alone.
    """
    for key in keys:
        group = key.rpartition(".")[0]
        if all(OmegaConf.select(config, group) is not None for config in (source, target)):
            OmegaConf.update(target, key, OmegaConf.select(source, key))


def changed_keys(now: Any, before: Any, keys: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """Return key -> (value now, value before) of the keys that two configurations differ in."""
    pairs = {key: (OmegaConf.select(now, key), OmegaConf.select(before, key)) for key in keys}
    return {key: (new, old) for key, (new, old) in pairs.items() if new != old}


def with_added_keys(config: Any) -> Config:
    """Give a recorded configuration the keys that its version did not have, as it behaved."""
    for key, value in ADDED_KEYS.items():
        if OmegaConf.is_missing(config.trainer, key):
            config.trainer[key] = value
    return cast(Config, config)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a kill leaves the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def below_data_dir(path: str | None, data_dir: str) -> str | None:
    """Return a path with its data_dir written as `${data_dir}`, so that runs compare without it."""
    if path is None or not Path(path).is_relative_to(data_dir):
        return path
    return f"${{data_dir}}/{Path(path).relative_to(data_dir)}"


def without_data_dir(values: dict[str, Any], data_dir: str) -> None:
    """Write the places of a plain configuration's data relative to data_dir, in place."""
    taressfl = values.get("taressfl")
    for dataset in (values.get("dataset"), taressfl and taressfl.get("auxiliary")):
        if isinstance(dataset, dict) and isinstance(dataset.get("path"), str):
            dataset["path"] = below_data_dir(dataset["path"], data_dir)


def without_places(value: Any) -> Any:
    """Return a plain value, or a group of them, with the last part of each absolute path alone."""
    if isinstance(value, dict):
        return {key: without_places(inner) for key, inner in value.items()}
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value


def move_data(config: Config, data_dir: str) -> None:
    """Let a run find its data in another data_dir, `dataset.path` too where it lies below."""
    for dataset in (config.dataset, config.taressfl.auxiliary):
        path = None if dataset is None else below_data_dir(dataset.path, config.data_dir)
        if dataset is not None and path is not None:
            dataset.path = path.replace("${data_dir}", data_dir, 1)
    config.data_dir = data_dir
