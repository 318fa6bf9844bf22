"""What training must know of remote clients; `mocosfl.training.deployment` says when it asks.

Few imports: `--help` waits neither for torch nor for the libraries of the extra `edge`.
"""

import logging
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from mocosfl.config.derived import edge_settings, is_networked
from mocosfl.config.schema import Config
from mocosfl.runs.folder import RunFolder
from mocosfl.system.files import write_atomically

if TYPE_CHECKING:
    from mocosfl.training.module import MocoSFL

log = logging.getLogger(__name__)


class NetworkedDeployment:
    """Clients, or some of them, are other machines."""

    ends_at_step_end = False  # a step may wait for clients without end
    sees_images = False  # devices have their own images and make their own views

    def check(self, config: Config) -> None:
        """Check that the extra `edge` is installed and that the certificates can be read."""
        if not is_networked(config):
            raise ValueError(
                "edge: the clients of this run are simulated, and their state is with it, not on "
                "devices; a simulation is trained and resumed with train.py"
            )
        try:  # the libraries of the extra `edge` are not everybody's
            from mocosfl.edge.server.build import server_credentials
        except ModuleNotFoundError as error:
            raise ValueError(
                f"edge: {error.name} is not installed; install it with pip install -e '.[edge]'"
            ) from error
        server_credentials(edge_settings(config))

    def wrap(self, config: Config, module: "MocoSFL") -> AbstractContextManager["MocoSFL"]:
        """Return a context in which the clients are at the other end of streams."""
        from mocosfl.edge.server.build import networked

        return networked(config, module)

    def write_records(self, config: Config, folder: RunFolder, module: "MocoSFL") -> None:
        """Write edge.json: the bytes that travelled, beside those that were predicted."""
        from mocosfl.edge.server import traffic_comparison
        from mocosfl.edge.server.networked_module import NetworkedMocoSFL

        assert isinstance(module, NetworkedMocoSFL)
        comparison = traffic_comparison.compare_traffic(
            config, module.federation.remote_clients.ledger
        )
        log.info("the streams\n%s", traffic_comparison.describe_traffic(comparison))
        write_atomically(folder.edge, traffic_comparison.traffic_json(comparison))
