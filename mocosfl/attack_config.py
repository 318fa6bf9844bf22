"""Schema and rules of `python -m mocosfl.attack`; its defaults are in conf/attack.yaml."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class AttackSettings:
    """`attack.`: what the attacker knows and does."""

    client: int = MISSING  # whose images are attacked, counted from 0
    num_images: int = MISSING  # victims; 128 published
    known_fraction: float = MISSING  # of all training images, known to the attacker; 0.01 published
    decoder: str = MISSING  # res_normN4C64, conv_normN4C64, plain ...
    num_epochs: int = MISSING  # of the decoder; 50 published
    batch_size: int = MISSING  # images a step of the decoder; 32 published
    learning_rate: float = MISSING  # of the decoder's Adam; 1e-3 published
    validation_fraction: float = MISSING  # of the known images, choose the epoch; 0.1 published
    optimisation_steps: int = MISSING  # of Adam on the pixels
    optimisation_learning_rates: list[float] = MISSING  # in pixel ranges; the best is chosen
    optimisation_prior_weights: list[float] = MISSING  # of total variation; the best is chosen
    optimisation_tuning_images: int = MISSING  # known images that the choice is made on, at most
    optimisation_block_images: int = MISSING  # images a forward pass; bounds the memory
    pictures: int = MISSING  # victims in the picture, at most


@dataclass
class AttackConfig:
    """`python -m mocosfl.attack`: model inversion."""

    checkpoint: str = MISSING  # a checkpoint file or a run folder
    which: str = MISSING  # in a run folder: last or best
    data_dir: str | None = None  # null: the run's own
    output_dir: str | None = None  # null: attack/ in the run folder
    seed: int = MISSING  # of victims, known images and the decoder; at least 0
    accelerator: str = MISSING  # cpu, gpu or auto
    wandb: bool = MISSING  # log to the run's W&B too, where the run has one
    attack: AttackSettings = field(default_factory=AttackSettings)


def register() -> None:
    """Register the schema with Hydra; may be called more than once."""
    ConfigStore.instance().store(name="attack_schema", node=AttackConfig)


register()


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
    from mocosfl.accelerator import accelerator_rules

    if config.which not in ("last", "best"):
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
