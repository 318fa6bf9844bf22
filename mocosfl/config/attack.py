"""The schema of `python -m mocosfl.attack`; its defaults are in conf/attack.yaml."""

from dataclasses import dataclass, field

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
