"""Values without a default, and names that are not known; no other rule can be asked of them."""

from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from mocosfl.config.derived import data_sets
from mocosfl.config.methods import METHODS
from mocosfl.config.schema import Config
from mocosfl.data.sources import SOURCES
from mocosfl.models.split import BACKBONES
from mocosfl.rules.problems import unknown

ACCELERATORS = ("auto", "cpu", "gpu")

PRECISIONS = ("fp32", "bf16", "fp64")
# Of torch.compile; both with CUDA graphs are for GPUs.
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
WANDB_MODES = ("offline", "online")

BOTTLENECK_STRIDES = (1, 2, 4)


def missing_rules(config: Config) -> Iterator[str]:
    """Yield a line for each value that has no default and was not given."""
    values = OmegaConf.to_container(OmegaConf.structured(config), resolve=False)
    assert isinstance(values, dict)
    for key in _missing_keys(values, ""):
        yield f"{key}=???: has no default; set it, as in {key}=<value>"


def _missing_keys(values: dict[Any, Any], prefix: str) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _missing_keys(value, f"{prefix}{name}.")
        elif value == "???":
            yield f"{prefix}{name}"


def name_rules(config: Config) -> Iterator[str]:
    """Yield a line for each name that is not known."""
    sources = [(f"{group}.source", d.source, SOURCES) for group, d in data_sets(config).items()]
    return unknown(
        [
            *sources,
            ("backbone.name", config.backbone.name, BACKBONES),
            ("trainer.accelerator", config.trainer.accelerator, ACCELERATORS),
            ("trainer.precision", config.trainer.precision, PRECISIONS),
            ("trainer.compile_mode", config.trainer.compile_mode, COMPILE_MODES),
            ("logger.wandb_mode", config.logger.wandb_mode, WANDB_MODES),
            ("method.name", config.method.name, METHODS),
            ("split.bottleneck_stride", config.split.bottleneck_stride, BOTTLENECK_STRIDES),
        ]
    )
