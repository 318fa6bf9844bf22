"""What Hydra needs to know: the place of `conf/`, the schemas, the resolvers, the run's folder."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mocosfl.config.attack import AttackConfig
from mocosfl.config.command_line import is_of_edge, quote_choices
from mocosfl.config.embed import EmbedConfig
from mocosfl.config.identity import check_run_folder, cut_name, job_folder
from mocosfl.config.probe import ProbeConfig
from mocosfl.config.published import (
    published_batch_size,
    published_classes_per_client,
    published_participation,
    published_rounds,
    published_syncs_per_round,
)
from mocosfl.config.schema import Config
from mocosfl.system.files import check_writable

CONF = Path(__file__).parents[2] / "conf"


def hydra_command(config_name: str) -> Callable[[Callable[[Any], Any]], Callable[[], Any]]:
    """Return Hydra's decorator for a command whose defaults are in `conf/<config_name>.yaml`."""
    return hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)


def choose_run_dir(resume: str | None, fresh: str) -> str:
    """Return the folder of the run to continue, or that of a fresh run.

    Checked here and not when it is made, since Hydra makes it before our code runs.

    Raises:
        FileNotFoundError: there is no run to continue.
        ValueError: the folder cannot be made or written to.
    """
    if resume is not None:
        check_run_folder(Path(resume), "resume")
    check_writable(Path(resume or fresh))
    return resume or fresh


def _run_dir_or_exit(resume: str | None, fresh: str) -> str:
    """Choose the run folder; a mistake ends the program here.

    An exception of ours would reach the user as a traceback through Hydra and OmegaConf.
    """
    try:
        return choose_run_dir(resume, fresh)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"\nmocosfl: {error}\n")
        sys.exit(1)


def _job_folder(*, _root_: DictConfig) -> str:
    """Name a sweep's job; OmegaConf passes the root by this argument's name."""
    return job_folder(_root_)


def register() -> None:
    """Register schemas and resolvers with Hydra; may be called more than once."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(name="probe_schema", node=ProbeConfig)
    store.store(name="attack_schema", node=AttackConfig)
    store.store(name="embed_schema", node=EmbedConfig)
    resolvers: dict[str, Callable[..., Any]] = {
        "published_batch_size": published_batch_size,
        "published_syncs_per_round": published_syncs_per_round,
        "published_participation": published_participation,
        "published_rounds": published_rounds,
        "published_classes_per_client": published_classes_per_client,
        "cut_name": cut_name,
        "job_folder": _job_folder,
        "run_dir": _run_dir_or_exit,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(f"mocosfl.{name}", resolver, replace=True)


def composed(overrides: list[str]) -> Config:
    """Return the configuration that `train.py` would get; with `edge.*` the networked server.

    By hydra's compose function and not its decorator, which makes a run folder.

    Raises:
        ValueError: hydra refuses the overrides.
    """
    name = "edge_server" if any(map(is_of_edge, overrides)) else "config"
    try:
        return cast(Config, compose_file(name, overrides))
    except HydraException as error:
        raise ValueError(str(error)) from error


def compose_file(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Return what a program's file in `conf/` composes to.

    Args:
        name: of the file, without its suffix.
        overrides: as they are typed behind the program.
    """
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="mocosfl"):
        return compose(name, quote_choices(list(overrides)))


def in_sweep() -> bool:
    """Return whether this is a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def chosen(group: str) -> str | None:
    """Return what was chosen of a group that says nothing: `none` or `off`."""
    if not HydraConfig.initialized():
        return None
    choice = HydraConfig.get().runtime.choices.get(group)
    return None if choice in (None, "none", "off") else str(choice)


register()
