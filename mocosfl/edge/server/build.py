"""From a simulation's module to one whose clients are other machines."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mocosfl.config.derived import edge_settings, remote_clients
from mocosfl.config.edge import EdgeConfig
from mocosfl.config.schema import Config
from mocosfl.edge.credentials import Credentials, read_credentials
from mocosfl.edge.server.client_settings import make_remote_clients
from mocosfl.edge.server.networked_federation import NetworkedFederation
from mocosfl.edge.server.networked_module import NetworkedMocoSFL
from mocosfl.edge.server.remote_clients import RemoteClients
from mocosfl.federation.server import Server
from mocosfl.training.module import MocoSFL

log = logging.getLogger(__name__)


@contextmanager
def networked(config: Config, module: MocoSFL) -> Iterator[NetworkedMocoSFL]:
    """Put a run's clients at the other end of streams; at the end they are told that it is over.

    Args:
        config: a valid configuration with `edge`.
        module: of the simulation; its parts go over to the module that is yielded.

    Raises:
        ValueError, FileNotFoundError: the certificates are not there or not readable.
    """
    edge, federation = edge_settings(config), module.federation
    assert isinstance(federation.server, Server)
    clients = make_remote_clients(config, federation.clients.head, module.steps_per_round)
    if edge.certificates is None and edge.insecure:
        log.warning(
            "edge.insecure=true: nothing is encrypted and anybody who can connect to %s may take "
            "part under any client's name",
            edge.listen,
        )
    connected = RemoteClients(clients, edge, server_credentials(edge))
    own = NetworkedMocoSFL(
        NetworkedFederation(
            federation.clients,
            federation.server,
            both_views=federation.both_views,
            align_momentum=federation.align_momentum,
            remote=remote_clients(config),
            remote_clients=connected,
        ),
        module.optimizer_settings,
        num_rounds=module.num_rounds,
        steps_per_round=module.steps_per_round,
        config=module.config,
        lr_scale=module.lr_scale,
    )
    finished = False
    try:
        yield own
        finished = own.global_step >= own.trainer.max_steps
    finally:
        text = "the run is finished" if finished else "the server stops and will be back"
        connected.close(finished=finished, text=text)


def server_credentials(edge: EdgeConfig) -> Credentials | None:
    """Return the server's certificates; None where the run is to be without.

    Raises:
        ValueError, FileNotFoundError: they are not there or not readable.
    """
    if edge.certificates is None:
        return None
    return read_credentials(Path(edge.certificates), "edge.certificates")
