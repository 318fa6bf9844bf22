"""Experiments as Hydra composes them, and as runs of two steps."""

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from mocosfl.config.command_line import quote_choices
from mocosfl.config.hydra_setup import CONF

# A run of two steps of a tiny network.
TWO_STEPS = [
    "backbone.width=4",
    "moco.queue_length=2000",
    "moco.projector_hidden=16",
    "moco.projector_dim=8",
    "trainer.accelerator=cpu",
    "trainer.max_steps=2",
    "trainer.log_every_steps=1",
    "trainer.view_block_images=200",
    "trainer.num_threads=1",
    "trainer.progress_bar=false",
    "logger=csv",
    "callbacks.knn_every_rounds=0",
    "callbacks.pictures=false",
    "callbacks.measure_client_memory=false",
    "callbacks.probe_at_end=false",
]


def composed(overrides: list[str], name: str = "config") -> DictConfig:
    """Compose a configuration with that of Hydra."""
    with initialize_config_dir(str(CONF), version_base=None):
        return hydra_compose(name, quote_choices(overrides), return_hydra_config=True)


def jobs(overrides: list[str]) -> list[list[str]]:
    """Return the command lines of a sweep's jobs, as Hydra makes them."""
    swept = OverridesParser.create().parse_overrides(quote_choices(overrides))
    single = [o.input_line for o in swept if not o.is_sweep_override()]
    params = OmegaConf.to_container(composed(single).hydra.sweeper.params or OmegaConf.create())
    assert isinstance(params, dict)
    lines = [f"{key}={value}" for key, value in params.items()] + quote_choices(overrides)
    (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(lines), None)
    return batch
