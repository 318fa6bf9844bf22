"""Rules for the clients: how many, who is there, who is rich, what a sync gives."""

from collections.abc import Iterator

from mocosfl.config.choices import Averaging, ClientState
from mocosfl.config.derived import is_frozen, num_rich_clients, pool_size
from mocosfl.config.schema import Config
from mocosfl.rules.problems import not_below_1, not_up_to_1, not_within_0_and_1, too_small


def client_rules(config: Config) -> Iterator[str]:
    """Yield a line for each impossible federation."""
    c = config.clients
    yield from too_small(
        [
            ("clients.num_clients", c.num_clients, 1),
            ("clients.batch_size", c.batch_size, 1),
            ("clients.syncs_per_round", c.syncs_per_round, 1),
            ("clients.num_rounds", c.num_rounds, 1),
        ]
    )
    yield from not_below_1([("clients.dropout_probability", c.dropout_probability)])
    if not 0 < c.participation <= 1:
        yield from not_up_to_1([("clients.participation", c.participation)])
        return
    if pool_size(config) < 1 <= c.num_clients:
        yield (
            f"clients.participation={c.participation}: leaves an empty pool of {c.num_clients} "
            f"clients; use at least {1 / c.num_clients:.3g}"
        )
    if 0 < c.dropout_probability < 1 and pool_size(config) == 1:
        yield (
            f"clients.dropout_probability={c.dropout_probability}: a step needs a client, and the "
            "pool has only one; set it to 0, or use more clients"
        )


def heterogeneity_rules(config: Config) -> Iterator[str]:
    """Yield a line for each impossible division into rich and poor clients."""
    h, num_clients = config.heterogeneity, config.clients.num_clients
    yield from too_small([("heterogeneity.rich_batch_factor", h.rich_batch_factor, 1)])
    yield from not_within_0_and_1([("heterogeneity.rich_data_fraction", h.rich_data_fraction)])
    if not 0 <= h.rich_fraction < 1:
        yield (
            f"heterogeneity.rich_fraction={h.rich_fraction}: must be from 0 to below 1; 0 makes "
            "all clients alike"
        )
    elif h.rich_fraction > 0 and num_clients >= 1:
        num_rich = num_rich_clients(config)
        if not 0 < num_rich < num_clients:
            side = "poor" if num_rich else "rich"
            yield (
                f"heterogeneity.rich_fraction={h.rich_fraction}: leaves no {side} client among "
                f"{num_clients}; change it, or use heterogeneity=none"
            )


def averaging_rules(config: Config) -> Iterator[str]:
    """Yield a line for each average that cannot be taken."""
    a, clients = config.averaging, config.clients
    yield from not_up_to_1([("averaging.divergence_strength", a.divergence_strength)])
    if a.kind is not Averaging.mean and is_frozen(config):
        yield (
            f"averaging.kind={a.kind.name}: optimizer.client_lr=0 freezes the heads, so nothing is "
            "averaged; use averaging=mean"
        )
    stateless = clients.client_state is ClientState.stateless
    if a.kind is Averaging.divergence_aware and stateless and clients.participation < 1:
        yield (
            "averaging.kind=divergence_aware: with clients.client_state=stateless a client that "
            "leaves the pool keeps nothing of its own; use client_state=bank or averaging=mean"
        )
