"""Rules for `edge`, the networked server."""

from collections.abc import Iterator

from mocosfl.config.choices import LEARNING, ClientState
from mocosfl.config.derived import (
    edge_settings,
    is_networked,
    is_supervised,
    is_whole_network,
    num_remote,
)
from mocosfl.config.edge import EdgeConfig
from mocosfl.config.schema import Config
from mocosfl.rules.problems import not_positive, too_small
from mocosfl.system.addresses import parse_address

WIRE_PRECISIONS = ("fp32", "fp16", "int8", "fp64")


def edge_rules(config: Config) -> Iterator[str]:
    """Yield a line for each thing that a networked federation can't do, or is out of bounds."""
    if not is_networked(config):
        return
    edge = edge_settings(config)
    yield from _address(edge)
    yield from _numbers(config, edge)
    if edge.precision not in WIRE_PRECISIONS:
        yield f"edge.precision={edge.precision}: choose one of {', '.join(WIRE_PRECISIONS)}"
    elif edge.precision == "fp64" and config.trainer.precision != "fp64":
        yield "edge.precision=fp64: only with trainer.precision=fp64; choose fp32"
    yield from _methods(config)


def _address(edge: EdgeConfig) -> Iterator[str]:
    try:
        address = parse_address(edge.listen)
    except ValueError as error:
        yield f"edge.listen={error}"
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
    num_clients, remote = config.clients.num_clients, num_remote(config)
    if not 1 <= remote <= num_clients:
        yield (
            f"edge.num_remote={remote}: must be from 1 to clients.num_clients={num_clients}; "
            "without remote clients use train.py"
        )
    least = 1 if remote == num_clients else 0
    if not least <= edge.min_clients <= remote:
        yield (
            f"edge.min_clients={edge.min_clients}: must be from {least} to {remote}, the remote "
            "clients"
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
