"""Rules for `moco` and for the queue of keys."""

from collections.abc import Iterator

import numpy as np

from mocosfl.config.derived import batch_sizes, is_supervised, keys_per_row, pool_size, queue_shape
from mocosfl.config.schema import Config
from mocosfl.rules.problems import not_from_0_to_1, not_positive, too_small


def moco_rules(config: Config) -> Iterator[str]:
    """Yield a line for each number outside its bounds."""
    m = config.moco
    at_least = [
        ("moco.queue_length", m.queue_length, 1),
        ("moco.projector_dim", m.projector_dim, 1),
    ]
    if m.projector_hidden is not None:
        at_least.append(("moco.projector_hidden", m.projector_hidden, 1))
    yield from too_small(at_least)
    yield from not_positive([("moco.temperature", m.temperature)])
    yield from not_from_0_to_1([("moco.momentum", m.momentum)])


def queue_rules(config: Config) -> Iterator[str]:
    """Yield a line if a step's keys do not fit into the queue."""
    moco, clients = config.moco, config.clients
    known = 0 < clients.participation <= 1 and 0 <= config.heterogeneity.rich_fraction < 1
    if is_supervised(config) or clients.num_clients < 1 or not known:
        return  # no queue; or reported among the ranges
    largest = np.sort(batch_sizes(config))[::-1] * keys_per_row(config)
    per_client = int(largest[0])
    if moco.feature_sharing:
        keys = int(largest[: pool_size(config)].sum())  # of the pool with the largest batches
        if keys > moco.queue_length:
            yield (
                f"moco.queue_length={moco.queue_length}: shorter than the {keys} keys of one step; "
                f"use at least {keys}, or fewer or smaller clients"
            )
        return
    private = queue_shape(config)[1]
    if per_client > private:
        yield (
            f"moco.queue_length={moco.queue_length}: leaves {private} keys to each of "
            f"{clients.num_clients} private queues, a client brings {per_client} a step; "
            f"use at least {per_client * clients.num_clients}, or moco.feature_sharing=true"
        )
