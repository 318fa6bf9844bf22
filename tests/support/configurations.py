"""Composed configurations, and command lines of runs that are quick."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from mocosfl.config.command_line import quote_choices
from mocosfl.config.hydra_setup import CONF, compose_file
from mocosfl.config.schema import Config

Compose = Callable[[Sequence[str]], Config]

QUICK = [
    "dataset=digits",
    "partition=shards",
    "clients.num_clients=100",
    "clients.batch_size=2",
    "clients.syncs_per_round=2",
    "clients.participation=0.06",
    "clients.num_rounds=3",
    "backbone.width=4",
    "moco.queue_length=400",
    "moco.projector_hidden=16",
    "moco.projector_dim=8",
    "trainer.accelerator=cpu",
    "trainer.log_every_steps=1",
    "trainer.view_block_images=36",
    "trainer.num_threads=1",
    "trainer.progress_bar=false",
    "logger=csv",
    "callbacks.checkpoint_every_steps=2",
    "callbacks.knn_every_rounds=1",
    "callbacks.knn_num_images=60",
    "callbacks.knn_num_neighbors=5",
    "callbacks.pictures=false",
    "callbacks.measure_client_memory=false",
]
"""Command line of a run of 21 steps in 1.5 s: 3 rounds of 7 steps of 6 clients with 2 images."""
STEPS, STEPS_PER_ROUND = 21, 7  # of the quick run, which saves every 2 steps


@lru_cache
def cached_config(overrides: tuple[str, ...]) -> DictConfig:
    """Compose `python train.py <overrides>`, which takes 0.2 s, once; copy it to change it."""
    return compose_file("config", overrides)


def composed_with_hydra(overrides: Sequence[str], name: str = "config") -> DictConfig:
    """Compose a program's configuration with that of Hydra, which has the folders of runs."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose(name, quote_choices(list(overrides)), return_hydra_config=True)


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """Change values of a composed configuration, by their full keys; returns it."""
    for key, value in values.items():
        OmegaConf.update(cast(DictConfig, config), key, value)
    return config


EXPERT = [
    "taressfl=expert",
    "dataset@taressfl.auxiliary=digits",
    "taressfl.auxiliary.name=more_digits",
    "partition=iid",
    "split=cut1_c4s2",
    "clients.num_clients=1",
    "clients.participation=1",
    "clients.batch_size=12",
    "clients.syncs_per_round=1",
    "taressfl.target_rows=4",
    "taressfl.target_fraction=0.02",
    "taressfl.decoder=plain",
    "taressfl.target_ssim=0.0",
    "trainer.max_steps=9",
    "callbacks.checkpoint_every_steps=3",
    "callbacks.knn_every_rounds=0",
    "callbacks.collapse_min_std=0",  # so small a network starts with hardly any spread
]
"""Overrides of an expert's training for 9 steps."""
ONLINE = ["split=cut1_c4s2", "taressfl.decoder=plain", "taressfl.target_ssim=0.0"]
"""Further overrides of `taressfl=online` for so small a network."""
