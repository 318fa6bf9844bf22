"""Experiments as Hydra composes them, and as runs of two steps."""

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mocosfl.config.command_line import quote_choices
from tests.support.configurations import composed_with_hydra

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


def jobs(overrides: list[str]) -> list[list[str]]:
    """Return the command lines of a sweep's jobs, as Hydra makes them."""
    swept = OverridesParser.create().parse_overrides(quote_choices(overrides))
    single = [o.input_line for o in swept if not o.is_sweep_override()]
    params = OmegaConf.to_container(
        composed_with_hydra(single).hydra.sweeper.params or OmegaConf.create()
    )
    assert isinstance(params, dict)
    lines = [f"{key}={value}" for key, value in params.items()] + quote_choices(overrides)
    (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(lines), None)
    return batch
