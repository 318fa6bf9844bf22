"""Which keys make two runs one, and how two configurations are compared."""

import copy
import hashlib
import json
import re
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from mocosfl.config.edge import FREE_EDGE_KEYS
from mocosfl.config.schema import Config
from mocosfl.system.errors import words

CONFIG_FILE = "config.yaml"  # in a run's folder, which is known by it


def check_run_folder(path: Path, key: str) -> None:
    """Refuse a folder that is not a run's.

    Args:
        path: of the folder, as the user gave it.
        key: that it was given as, for the message.

    Raises:
        FileNotFoundError: it has no `CONFIG_FILE`.
    """
    if not (path / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"{key}={path}: not a run folder, it has no {CONFIG_FILE}; name the folder that the "
            "run printed, one below multirun/"
        )


def plain(config: Config) -> dict[str, Any]:
    """Return the resolved configuration as plain values, enums by name."""
    values = OmegaConf.to_container(
        OmegaConf.structured(config), resolve=True, enum_to_str=True, throw_on_missing=True
    )
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def recorded_config(values: Any, source: str, way_out: str) -> Config:
    """Return the configuration that a run has recorded.

    Args:
        values: as recorded, plain or OmegaConf's.
        source: where they come from, for messages.
        way_out: what to do about a configuration of another version.

    Raises:
        ValueError: a key is not known or not there, or a value is of another kind.
    """
    try:
        config = OmegaConf.merge(OmegaConf.structured(Config), values)
    except ConfigKeyError as error:
        raise unreadable_config(source, f"{error.full_key} is not a key of it", way_out) from error
    except OmegaConfBaseException as error:
        problem = f"{error.full_key}: {words(error)}"
        raise unreadable_config(source, problem, way_out) from error
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise unreadable_config(source, f"{', '.join(missing)}: not there", way_out)
    return cast(Config, config)


def unreadable_config(source: str, problem: str, way_out: str) -> ValueError:
    """Return the error for a recorded configuration that this version can't read."""
    return ValueError(
        f"{source}: not a configuration of this version of mocosfl ({problem}); {way_out}"
    )


def compared_values(config: Config) -> dict[str, Any]:
    """Return all values, the data's place relative to data_dir: they may have moved with it."""
    values: Any = OmegaConf.to_container(
        OmegaConf.structured(config), resolve=True, enum_to_str=True
    )
    without_data_dir(values, values["data_dir"])
    return cast(dict[str, Any], values)


def differences(ours: Any, theirs: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """Return (key, our value, their value) of each key that two plain configurations differ in.

    Args:
        ours: a plain value, or a group of them.
        theirs: the other one.
        where: full key of the group.
    """
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return [] if ours == theirs else [(where, ours, theirs)]
    found = []
    for key in sorted(ours.keys() | theirs.keys()):
        path = f"{where}.{key}" if where else str(key)
        found += differences(ours.get(key), theirs.get(key), path)
    return found


def cut_name(cut_layer: int | None) -> str:
    """Return what a folder's name says of the cut: `cut<layer>`, or `whole` for None."""
    return "whole" if cut_layer is None else f"cut{cut_layer}"


# Where a run writes and how it shows itself; everything else shapes its result.
FREE_KEYS = ("run_dir", "sweep_name", "output_dir", "data_dir", "resume", "notes", "logger")

# What a run may go on with in another way: its result is the same but for rounding, and for which
# remote clients come late.
FREE_ON_RESUME = ("trainer.devices", *FREE_EDGE_KEYS)


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


def moved(config: Config, data_dir: str | None) -> Config:
    """Return a copy of a run's configuration with its data in another data_dir; None: the same."""
    config = copy.deepcopy(config)
    if data_dir is not None:
        move_data(config, data_dir)
    return config


MAX_NAME = 40  # characters of a name that the user chose; a file name has at most 255 bytes


def job_folder(root: DictConfig) -> str:
    """Return the name of a job's folder, for `hydra.sweep.subdir`.

    Args:
        root: the job's configuration. Where a value can't be resolved the name is made from what
            was written, because an exception here would take the whole sweep down; the job itself
            then says what is wrong.
    """
    names = [_select(root, f"{group}.name") for group in ("dataset", "method")]
    names.append(_select(root, "partition.kind"))
    short = [re.sub(r"[^\w.-]", "_", name)[:MAX_NAME] for name in names]
    cut = cut_name(OmegaConf.select(root, "split.cut_layer"))
    return f"{'_'.join(short)}_n{_select(root, 'clients.num_clients')}_{cut}_{digest(root)}"


def _select(root: DictConfig, key: str) -> str:
    try:
        value = OmegaConf.select(root, key)
    except OmegaConfBaseException:
        return "unknown"
    return str(value.name if isinstance(value, Enum) else value)


def digest(config: DictConfig) -> str:
    """Return 8 hexadecimal digits that stand for all settings that shape a run's result."""
    keys = sorted({str(key) for key in config} - {*FREE_KEYS, "hydra"})
    try:
        settings = {key: _plain(config, key, resolve=True) for key in keys}
    except (OmegaConfBaseException, ValueError):  # a ValueError of our own resolvers
        settings = {key: _plain(config, key, resolve=False) for key in keys}
    without_data_dir(settings, str(config.data_dir))
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _plain(config: DictConfig, key: str, *, resolve: bool) -> Any:
    if not resolve and OmegaConf.is_missing(config, key):
        return "???"
    value = config[key]
    if not OmegaConf.is_config(value):
        return value
    return OmegaConf.to_container(value, resolve=resolve, enum_to_str=True)
