"""Rules for `python -m mocosfl.attack`."""

from collections.abc import Iterator

from mocosfl.config.attack import AttackConfig
from mocosfl.runs.folder import WHICH


def validate_attack(config: AttackConfig) -> None:
    """Check the configuration of the attack; no value is changed.

    Raises:
        ValueError: names every broken rule, one a line.
    """
    problems = [*_command(config), *_numbers(config), *_choices(config)]
    if problems:
        raise ValueError("\n".join(problems))


def _command(config: AttackConfig) -> Iterator[str]:
    """Yield a line for each value that the command itself cannot do with."""
    # Imported here and below, so that --help does not wait for torch.
    from mocosfl.rules.machine import accelerator_rules

    if config.which not in WHICH:
        yield f"which={config.which}: choose last or best"
    yield from accelerator_rules(config.accelerator)


def _numbers(config: AttackConfig) -> Iterator[str]:
    """Yield a line for each number outside its bounds."""
    a = config.attack
    at_least: list[tuple[str, int, int]] = [
        ("seed", config.seed, 0),
        ("attack.client", a.client, 0),
        ("attack.num_images", a.num_images, 1),
        ("attack.num_epochs", a.num_epochs, 1),
        ("attack.batch_size", a.batch_size, 1),
        ("attack.optimisation_steps", a.optimisation_steps, 1),
        ("attack.optimisation_tuning_images", a.optimisation_tuning_images, 1),
        ("attack.optimisation_block_images", a.optimisation_block_images, 1),
        ("attack.pictures", a.pictures, 1),
    ]
    for key, value, least in at_least:
        if value < least:
            yield f"{key}={value}: must be at least {least}"
    if not a.learning_rate > 0:
        yield f"attack.learning_rate={a.learning_rate}: must be above 0"
    for key, fraction in (
        ("known_fraction", a.known_fraction),
        ("validation_fraction", a.validation_fraction),
    ):
        if not 0 < fraction < 1:
            yield f"attack.{key}={fraction}: must be above 0 and below 1"


def _choices(config: AttackConfig) -> Iterator[str]:
    """Yield a line for an unknown decoder and for each list that leaves nothing to choose."""
    from mocosfl.privacy.decoders import parse_decoder

    a = config.attack
    try:
        parse_decoder(a.decoder)
    except ValueError as error:
        yield f"attack.decoder={error}"
    rates = list(a.optimisation_learning_rates)
    if not rates or not all(rate > 0 for rate in rates):
        yield f"attack.optimisation_learning_rates={rates}: at least one, each above 0"
    weights = list(a.optimisation_prior_weights)
    if not weights or not all(weight >= 0 for weight in weights):
        yield f"attack.optimisation_prior_weights={weights}: at least one, each at least 0"
