"""Rules for `edge`, the networked server."""

import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple

from mocosfl.config.choices import LEARNING, ClientState
from mocosfl.config.derived import is_supervised, is_whole_network
from mocosfl.config.edge import EdgeConfig
from mocosfl.config.schema import Config
from mocosfl.rules.problems import not_positive, too_small

WIRE_PRECISIONS = ("fp32", "fp16", "int8", "fp64")


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


def parse_address(text: str, key: str) -> Address:
    """Read HOST:PORT.

    Raises:
        ValueError: it is anything else.
    """
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):(\d{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise ValueError(f"{key}={text}: HOST:PORT is wanted, as in 0.0.0.0:50061")
    return Address(match[1], int(match[2]))


def edge_rules(config: Config) -> Iterator[str]:
    """Yield a line for each thing that a networked federation can't do, or is out of bounds."""
    edge = config.edge
    if edge is None:
        return
    yield from _address(edge)
    yield from _numbers(config, edge)
    if edge.precision not in WIRE_PRECISIONS:
        yield f"edge.precision={edge.precision}: choose one of {', '.join(WIRE_PRECISIONS)}"
    elif edge.precision == "fp64" and config.trainer.precision != "fp64":
        yield "edge.precision=fp64: only with trainer.precision=fp64; choose fp32"
    yield from _methods(config)


def _address(edge: EdgeConfig) -> Iterator[str]:
    try:
        address = parse_address(edge.listen, "edge.listen")
    except ValueError as error:
        yield str(error)
        return
    if edge.certificates is None and not edge.insecure and not address.is_loopback:
        yield (
            f"edge.listen={edge.listen}: other machines can connect, and nothing would be "
            "encrypted nor anybody known; set edge.certificates to the folder that `python -m "
            "mocosfl.edge.certificates` made, or edge.insecure=true"
        )
    if edge.certificates is not None and edge.insecure:
        yield "edge.insecure=true: contradicts edge.certificates; leave one of them out"


def _numbers(config: Config, edge: EdgeConfig) -> Iterator[str]:
    num_clients = config.clients.num_clients
    num_remote = num_clients if edge.num_remote is None else edge.num_remote
    if not 1 <= num_remote <= num_clients:
        yield (
            f"edge.num_remote={num_remote}: must be from 1 to clients.num_clients={num_clients}; "
            "without remote clients use train.py"
        )
    least = 1 if num_remote == num_clients else 0
    if not least <= edge.min_clients <= num_remote:
        yield (
            f"edge.min_clients={edge.min_clients}: must be from {least} to {num_remote}, the "
            "remote clients"
        )
    yield from not_positive(
        [
            ("edge.step_deadline_seconds", edge.step_deadline_seconds),
            ("edge.keepalive_seconds", edge.keepalive_seconds),
            ("edge.status_every_seconds", edge.status_every_seconds),
        ]
    )
    yield from too_small(
        [
            ("edge.start_wait_seconds", edge.start_wait_seconds, 0),
            ("edge.max_refusals", edge.max_refusals, 1),
        ]
    )


def _methods(config: Config) -> Iterator[str]:
    """Yield a line for each choice that devices do not take part in."""
    if is_supervised(config) or is_whole_network(config):
        yield (
            f"method={config.method.name}: a networked federation trains mocosfl or monacosfl; "
            "choose one of them"
        )
    if config.saving.enabled:
        yield "saving.enabled=true: not in a networked federation; use saving=off"
    if config.taressfl.mode in LEARNING:
        yield (
            f"taressfl.mode={config.taressfl.mode.name}: not in a networked federation; use "
            "taressfl=off, or taressfl=on with an expert"
        )
    if config.clients.client_state is ClientState.stateless:
        yield (
            "clients.client_state=stateless: a device keeps its own state; use "
            "clients.client_state=bank"
        )
    if config.trainer.overfit_steps:
        yield (
            f"trainer.overfit_steps={config.trainer.overfit_steps}: devices draw their own images; "
            "set it to 0"
        )
    if config.trainer.devices != 1:
        yield (
            f"trainer.devices={config.trainer.devices}: a networked server is one process; set "
            "trainer.devices=1"
        )
