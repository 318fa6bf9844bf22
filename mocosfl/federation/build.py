"""From the configuration to the parts that train."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mocosfl.config.choices import Averaging, ClientState, Symmetric
from mocosfl.config.derived import (
    aligns_momentum,
    is_frozen,
    is_supervised,
    is_whole_network,
    num_views,
    pool_size,
    queue_shape,
)
from mocosfl.config.schema import Config
from mocosfl.federation.averaging import Averager
from mocosfl.federation.client_pool import ClientPool
from mocosfl.federation.federation import Federation
from mocosfl.federation.queue import KeyQueue
from mocosfl.federation.ranks import ALONE, Ranks
from mocosfl.federation.saving import CommunicationSaving, SmashedStore
from mocosfl.federation.server import Server, SupervisedServer
from mocosfl.models.build import build_projector, build_split
from mocosfl.models.whole_network import WholeNetwork
from mocosfl.system.randomness import torch_generator


def build_federation(
    config: Config, counts: npt.NDArray[np.int64] | None = None, ranks: Ranks = ALONE
) -> Federation:
    """Build clients and server; a pure function of the configuration and its seed.

    Args:
        config: a valid configuration.
        counts: (N,) images of each client; needed by `averaging=by_images` when clients train.
        ranks: the process among those that share each pool.
    """
    # Layers draw their start values from PyTorch's global generator; it is put back behind us.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_generator(config.seed, "weights").initial_seed())
        split = build_split(config)
        projector = build_projector(config, split)
    head: nn.Module = split.head
    trunk: nn.Module = split.trunk
    if is_whole_network(config):
        head, trunk = WholeNetwork(split.head.units, projector), nn.Identity()
        projector = nn.Identity()
    clients = ClientPool(
        head,
        num_clients=config.clients.num_clients,
        pool_size=pool_size(config),
        momentum=config.moco.momentum,
        stateless=config.clients.client_state is ClientState.stateless,
        frozen=is_frozen(config),
        averager=_build_averager(config, counts),
        ranks=ranks,
    )
    return Federation(
        clients,
        _build_server(config, trunk, projector),
        both_views=num_views(config) == 2,
        align_momentum=aligns_momentum(config),
        whole_network=is_whole_network(config),
    )


def _build_averager(config: Config, counts: npt.NDArray[np.int64] | None) -> Averager | None:
    averaging = config.averaging
    if averaging.kind is Averaging.by_images and counts is None:
        return None  # an untrained encoder is asked for, without data
    return Averager(
        averaging.kind.name,
        num_clients=config.clients.num_clients,
        strength=averaging.divergence_strength,
        image_counts=None if counts is None else torch.from_numpy(counts),
    )


def _build_server(
    config: Config, trunk: nn.Module, projector: nn.Module
) -> Server | SupervisedServer:
    if is_supervised(config):
        return SupervisedServer(trunk, projector, config.dataset.num_classes)
    return Server(
        trunk,
        projector,
        _build_queue(config),
        temperature=config.moco.temperature,
        momentum=config.moco.momentum,
        two_sided=config.moco.symmetric is Symmetric.server,
    )


def _build_queue(config: Config) -> KeyQueue:
    num_queues, length = queue_shape(config)
    return KeyQueue(
        num_queues,
        length,
        dim=config.moco.projector_dim,
        generator=torch_generator(config.seed, "queue"),
    )


def build_saving(config: Config, folder: Path | None) -> CommunicationSaving | None:
    """Build what decides on each round's traffic; None where all traffic is in each round.

    Args:
        config: a valid configuration.
        folder: for a round's smashed data; needed where saving is on.
    """
    if not config.saving.enabled:
        return None
    assert folder is not None
    return CommunicationSaving(
        SmashedStore(folder),
        warmup_rounds=config.saving.warmup_rounds,
        loss_threshold=config.saving.loss_threshold,
        seed=config.seed,
    )
