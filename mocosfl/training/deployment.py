"""Where the clients of a run are: simulated in this process, or something that is passed in.

`train` knows its clients through `Deployment` alone. `mocosfl.edge.server` passes another one in.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from mocosfl.config.command_line import SIMULATED_ALONE
from mocosfl.config.derived import is_networked
from mocosfl.config.schema import Config
from mocosfl.runs.folder import RunFolder

if TYPE_CHECKING:
    from mocosfl.training.module import MocoSFL


class Deployment(Protocol):
    """What training must know of where the clients are."""

    @property
    def ends_at_step_end(self) -> bool:
        """Whether a step ends by itself: an interrupted run then ends with a checkpoint."""

    @property
    def sees_images(self) -> bool:
        """Whether the clients' images are here, so that their views can be drawn."""

    def check(self, config: Config) -> None:
        """Check, before anything is written, that a run can have its clients here.

        Raises:
            ValueError, FileNotFoundError: says what is missing, or which program trains the run.
        """

    def wrap(self, config: Config, module: "MocoSFL") -> AbstractContextManager["MocoSFL"]:
        """Return a context that yields the module that trains, made of a simulation's module."""

    def write_records(self, config: Config, folder: RunFolder, module: "MocoSFL") -> None:
        """Write, after the last step, what only this deployment knows."""


class Simulation:
    """All clients are simulated in this process: the default."""

    ends_at_step_end = True
    sees_images = True

    def check(self, config: Config) -> None:
        """Refuse a run with remote clients."""
        if is_networked(config):
            raise ValueError(f"edge: {SIMULATED_ALONE}")

    def wrap(self, config: Config, module: "MocoSFL") -> AbstractContextManager["MocoSFL"]:
        """Return the module as it is."""
        return nullcontext(module)

    def write_records(self, config: Config, folder: RunFolder, module: "MocoSFL") -> None:
        """Write nothing."""


SIMULATION = Simulation()
