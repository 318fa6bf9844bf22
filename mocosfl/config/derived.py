"""What follows from a configuration by arithmetic alone; nothing is written back into it."""

from typing import TYPE_CHECKING, NamedTuple

from mocosfl.config.choices import Symmetric, TaressflMode
from mocosfl.config.edge import EdgeConfig
from mocosfl.config.methods import METHODS
from mocosfl.config.schema import Config, DatasetConfig

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def pool_size(config: Config) -> int:
    """Return P, the clients in a round's pool."""
    return round(config.clients.num_clients * config.clients.participation)


def num_rich_clients(config: Config) -> int:
    """Return how many clients are rich: the first of all, see `heterogeneity`."""
    return round(config.heterogeneity.rich_fraction * config.clients.num_clients)


def batch_sizes(config: Config) -> "npt.NDArray[np.int64]":
    """Return b of each client, (N,): the rich come first."""
    # Imported here and below: `--help` needs none of it.
    import numpy as np

    sizes = np.full(config.clients.num_clients, config.clients.batch_size)
    sizes[: num_rich_clients(config)] *= config.heterogeneity.rich_batch_factor
    return sizes


def is_networked(config: Config) -> bool:
    """Return whether clients are other machines: the run is the networked server's."""
    return config.edge is not None


def edge_settings(config: Config) -> EdgeConfig:
    """Return the settings of the networked server, which a networked run has."""
    assert config.edge is not None, "a simulation has none"
    return config.edge


def num_remote(config: Config) -> int:
    """Return how many clients are other machines, the first of all; 0 in a simulation."""
    number = edge_settings(config).num_remote if is_networked(config) else 0
    return config.clients.num_clients if number is None else number


def remote_clients(config: Config) -> "npt.NDArray[np.bool_]":
    """Return which clients are other machines, (N,)."""
    import numpy as np

    return np.arange(config.clients.num_clients) < num_remote(config)


def smashed_precision(config: Config) -> str:
    """Return the precision in which smashed data and gradients travel: a network has its own."""
    return (edge_settings(config) if is_networked(config) else config.trainer).precision


def part_batch_sizes(config: Config) -> "npt.NDArray[np.int64]":
    """Return an expert's rows of target and of auxiliary images; without target images of these."""
    import numpy as np

    taressfl, rows = config.taressfl, config.clients.batch_size
    if taressfl.target_fraction == 0:
        return np.array([rows])
    return np.array([taressfl.target_rows, rows - taressfl.target_rows])


def data_sets(config: Config) -> dict[str, DatasetConfig]:
    """Return the data sets that a run reads, by the groups that describe them.

    An auxiliary set that is described and not read is not among them.
    """
    auxiliary = config.taressfl.auxiliary
    sets = {"dataset": config.dataset}
    if is_expert(config) and auxiliary is not None:
        sets["taressfl.auxiliary"] = auxiliary
    return sets


def keys_per_row(config: Config) -> int:
    """Return how many keys a step enqueues for each image: 2 where the loss is two-sided."""
    return 1 if config.moco.symmetric is Symmetric.none else 2


def queue_shape(config: Config) -> tuple[int, int]:
    """Return how many queues there are and the keys in each: K for all, or K // N for each."""
    num_queues = 1 if config.moco.feature_sharing else config.clients.num_clients
    return num_queues, config.moco.queue_length // num_queues


class ClientKind(NamedTuple):
    """Clients that are alike."""

    name: str  # all, or rich and poor
    number: int  # clients of this kind
    batch_size: int  # b, images a step


def client_kinds(config: Config) -> list[ClientKind]:
    """Return the kinds of clients that there are, the rich first."""
    number, batch_size = config.clients.num_clients, config.clients.batch_size
    rich = num_rich_clients(config)
    kinds = [
        ClientKind("rich", rich, batch_size * config.heterogeneity.rich_batch_factor),
        ClientKind("poor", number - rich, batch_size),
    ]
    return kinds if rich else [ClientKind("all", number, batch_size)]


def is_central(config: Config) -> bool:
    """Return whether one machine holds all images, so that nothing travels."""
    return is_expert(config) or METHODS[config.method.name].central


def is_whole_network(config: Config) -> bool:
    """Return whether each client holds the whole network, so that nothing is cut."""
    return METHODS[config.method.name].whole_network


def is_supervised(config: Config) -> bool:
    """Return whether labels take the place of the contrastive loss."""
    return METHODS[config.method.name].supervised


def aligns_momentum(config: Config) -> bool:
    """Return whether a sync averages the momentum heads too (MonAcoSFL)."""
    return METHODS[config.method.name].aligns_momentum


def is_frozen(config: Config) -> bool:
    """Return whether the clients do not train: no gradient comes down, no weights travel."""
    return config.optimizer.client_lr == 0


def num_views(config: Config) -> int:
    """Return how many views of an image run through a client's online network in a step."""
    if is_supervised(config):
        return 1
    return 2 if config.moco.symmetric is Symmetric.full else 1


def is_expert(config: Config) -> bool:
    """Return whether a run trains an expert for TAResSFL."""
    return config.taressfl.mode is TaressflMode.expert
