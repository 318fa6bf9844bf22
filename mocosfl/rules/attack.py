"""Rules for `python -m mocosfl.attack`."""

from collections.abc import Iterator

from mocosfl.config.attack import AttackConfig
from mocosfl.rules.command import command_rules
from mocosfl.rules.privacy import decoder_rules
from mocosfl.rules.problems import not_positive, not_within_0_and_1, refuse, too_small


def validate_attack(config: AttackConfig) -> None:
    """Check the configuration of the attack; no value is changed.

    Raises:
        ValueError: names every broken rule, one a line.
    """
    refuse(
        [
            *command_rules(config, "whose head to attack, checkpoint=<run folder> or a .ckpt file"),
            *_numbers(config),
            *_choices(config),
        ]
    )


def _numbers(config: AttackConfig) -> Iterator[str]:
    """Yield a line for each number outside its bounds."""
    a = config.attack
    at_least = [
        ("seed", config.seed, 0),
        ("attack.client", a.client, 0),
        ("attack.num_images", a.num_images, 1),
        ("attack.num_epochs", a.num_epochs, 1),
        ("attack.batch_size", a.batch_size, 1),
        ("attack.optimisation_steps", a.optimisation_steps, 1),
    ]
    yield from too_small(at_least)
    yield from not_positive([("attack.learning_rate", a.learning_rate)])
    yield from not_within_0_and_1(
        [
            ("attack.known_fraction", a.known_fraction),
            ("attack.validation_fraction", a.validation_fraction),
        ]
    )


def _choices(config: AttackConfig) -> Iterator[str]:
    """Yield a line for an unknown decoder and for each list that leaves nothing to choose."""
    a = config.attack
    yield from decoder_rules("attack.decoder", a.decoder)
    rates = list(a.optimisation_learning_rates)
    if not rates or not all(rate > 0 for rate in rates):
        yield f"attack.optimisation_learning_rates={rates}: at least one, each above 0"
    weights = list(a.optimisation_prior_weights)
    if not weights or not all(weight >= 0 for weight in weights):
        yield f"attack.optimisation_prior_weights={weights}: at least one, each at least 0"
