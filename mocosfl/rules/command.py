"""Rules that `linear_probe.py`, `mocosfl.attack` and `mocosfl.embed` share."""

from collections.abc import Iterator

from omegaconf import OmegaConf

from mocosfl.config.attack import AttackConfig
from mocosfl.config.embed import EmbedConfig
from mocosfl.config.probe import ProbeConfig
from mocosfl.rules.names import ACCELERATORS
from mocosfl.rules.problems import unknown
from mocosfl.runs.checkpoint import check_which


def command_rules(config: ProbeConfig | AttackConfig | EmbedConfig, ask: str) -> Iterator[str]:
    """Yield a line where no checkpoint is named, or where that of a run or the device is unknown.

    Args:
        config: of the command.
        ask: what to name as `checkpoint`, and how.
    """
    if OmegaConf.is_missing(config, "checkpoint"):
        yield f"checkpoint=???: name {ask}"
    try:
        check_which(config.which)
    except ValueError as error:
        yield str(error)
    yield from unknown([("accelerator", config.accelerator, ACCELERATORS)])
