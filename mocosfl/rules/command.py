"""Rules that `linear_probe.py`, `mocosfl.attack` and `mocosfl.embed` share."""

from collections.abc import Iterator

from mocosfl.rules.names import ACCELERATORS
from mocosfl.rules.problems import unknown
from mocosfl.runs.checkpoint import check_which


def command_rules(which: str, accelerator: str) -> Iterator[str]:
    """Yield a line where the checkpoint of a run, or the device, is not one that there is."""
    try:
        check_which(which)
    except ValueError as error:
        yield str(error)
    yield from unknown([("accelerator", accelerator, ACCELERATORS)])
