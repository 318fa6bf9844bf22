"""Settings of a quick attack."""

import copy
from functools import lru_cache
from typing import cast

from omegaconf import DictConfig

from mocosfl.config.attack import AttackConfig
from mocosfl.config.hydra_setup import compose_file

QUICK_ATTACK = (
    "accelerator=cpu",
    "attack.decoder=conv_normN0C4",
    "attack.num_epochs=2",
    "attack.known_fraction=0.02",
    "attack.num_images=6",
    "attack.optimisation_steps=3",
    "attack.optimisation_learning_rates=[0.03]",
    "attack.optimisation_prior_weights=[0.01]",
)


@lru_cache
def cached_attack(overrides: tuple[str, ...]) -> DictConfig:
    """Compose `python -m mocosfl.attack <overrides>` once; copy it to change it."""
    return compose_file("attack", overrides)


def settings(*overrides: str) -> AttackConfig:
    """Return the settings of a quick attack with further overrides."""
    return cast(AttackConfig, copy.deepcopy(cached_attack((*QUICK_ATTACK, *overrides))))
