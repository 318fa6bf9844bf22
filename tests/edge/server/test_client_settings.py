"""What a run asks of its remote clients must fit into messages."""

import pytest

from mocosfl.edge.server.client_settings import make_remote_clients
from mocosfl.overhead.network import build_network
from tests.support.configurations import Compose
from tests.support.edge_federation import with_edge


def test_step_that_no_message_can_hold_is_refused(compose_quick: Compose) -> None:
    config = with_edge(compose_quick(["clients.batch_size=8192"]))
    with pytest.raises(ValueError, match=r"clients\.batch_size=8192: the smashed data of a step"):
        make_remote_clients(config, build_network(config).client, 7)
