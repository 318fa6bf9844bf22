"""Each rule about an attack has a case that breaks it."""

from typing import cast

import pytest

from mocosfl.config.attack import AttackConfig
from mocosfl.rules.attack import validate_attack
from tests.support.attack_settings import cached_attack, settings


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=-1", "seed=-1: must be at least 0"),
        ("which=first", "which=first: choose last or best"),
        ("accelerator=tpu", "accelerator=tpu: unknown"),
        ("attack.client=-1", "attack.client=-1: must be at least 0"),
        ("attack.num_images=0", "attack.num_images=0: must be at least 1"),
        ("attack.num_epochs=0", "attack.num_epochs=0: must be at least 1"),
        ("attack.batch_size=0", "attack.batch_size=0: must be at least 1"),
        ("attack.learning_rate=0", "attack.learning_rate=0.0: must be above 0"),
        ("attack.known_fraction=0", "attack.known_fraction=0.0: must be above 0 and below 1"),
        ("attack.known_fraction=1", "attack.known_fraction=1.0: must be above 0 and below 1"),
        ("attack.validation_fraction=1", "attack.validation_fraction=1.0: must be above 0"),
        ("attack.decoder=res", "attack.decoder=res: unknown decoder; choose"),
        ("attack.optimisation_steps=0", "attack.optimisation_steps=0: must be at least 1"),
        ("attack.optimisation_learning_rates=[]", "at least one, each above 0"),
        ("attack.optimisation_prior_weights=[-1]", "at least one, each at least 0"),
    ],
)
def test_setting_out_of_bounds_is_named(override: str, words: str):
    with pytest.raises(ValueError) as error:
        validate_attack(settings("checkpoint=x", override))
    assert words in str(error.value)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ValueError) as error:
        validate_attack(settings("seed=-1", "attack.num_images=0", "attack.decoder=x"))
    first, *others = str(error.value).splitlines()
    assert first.startswith("checkpoint=???: name whose head to attack, checkpoint=<run folder>")
    assert len(others) == 3


def test_defaults_are_the_published_ones():
    config = cast(AttackConfig, cached_attack(("checkpoint=x",)))
    a = config.attack
    assert (a.decoder, a.known_fraction, a.num_images) == ("res_normN4C64", 0.01, 128)
    assert (a.num_epochs, a.batch_size, a.learning_rate) == (50, 32, 1e-3)
    assert a.validation_fraction == 0.1
    validate_attack(config)
