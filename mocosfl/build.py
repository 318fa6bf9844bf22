"""From the configuration to the parts that train."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import OmegaConf
from torch import nn

from mocosfl.averaging import Averager
from mocosfl.client_pool import ClientPool
from mocosfl.config import Averaging, ClientState, Config, Symmetric, TaressflMode
from mocosfl.data.augmentation import ViewSettings
from mocosfl.data.round_plan import steps_per_round
from mocosfl.federation import Federation
from mocosfl.models.projector import Projector
from mocosfl.models.split import Split, bottleneck_of, split_backbone
from mocosfl.models.whole_network import WholeNetwork
from mocosfl.privacy.attackers import AttackerPool, Regulariser
from mocosfl.privacy.decoders import build_decoder
from mocosfl.queue import KeyQueue
from mocosfl.randomness import torch_generator
from mocosfl.ranks import ALONE, Ranks
from mocosfl.server import Server, SupervisedServer
from mocosfl.taressfl_rules import LEARNING


def plain(config: Config) -> dict[str, Any]:
    """Return the resolved configuration as plain values, enums by name."""
    values = OmegaConf.to_container(
        OmegaConf.structured(config), resolve=True, enum_to_str=True, throw_on_missing=True
    )
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def pool_size(config: Config) -> int:
    """Return P, the clients in a round's pool."""
    return round(config.clients.num_clients * config.clients.participation)


def num_rich_clients(config: Config) -> int:
    """Return how many clients are rich: the first of all, see `heterogeneity`."""
    return round(config.heterogeneity.rich_fraction * config.clients.num_clients)


def batch_sizes(config: Config) -> npt.NDArray[np.int64]:
    """Return b of each client, (N,): the rich come first."""
    sizes = np.full(config.clients.num_clients, config.clients.batch_size)
    sizes[: num_rich_clients(config)] *= config.heterogeneity.rich_batch_factor
    return sizes


def remote_clients(config: Config) -> npt.NDArray[np.bool_] | None:
    """Return which clients are other machines, (N,); None in a simulation."""
    if config.edge is None:
        return None
    num_clients, num_remote = config.clients.num_clients, config.edge.num_remote
    return np.arange(num_clients) < (num_clients if num_remote is None else num_remote)


def part_batch_sizes(config: Config) -> npt.NDArray[np.int64]:
    """Return an expert's rows of target and of auxiliary images; without target images of these."""
    taressfl, rows = config.taressfl, config.clients.batch_size
    if taressfl.target_fraction == 0:
        return np.array([rows])
    return np.array([taressfl.target_rows, rows - taressfl.target_rows])


def round_steps(config: Config, counts: npt.NDArray[np.int64]) -> int:
    """Return S, the steps of a round.

    Args:
        config: a valid configuration.
        counts: (N,) images of each client; of an expert the images of its parts, see
            `part_batch_sizes`.
    """
    if config.taressfl.mode is TaressflMode.expert:
        return max(1, int(counts[-1]) // int(part_batch_sizes(config)[-1]))
    return steps_per_round(counts, batch_sizes(config), local_epochs=config.method.local_epochs)


def keys_per_row(config: Config) -> int:
    """Return how many keys a step enqueues for each image: 2 where the loss is two-sided."""
    return 1 if config.moco.symmetric is Symmetric.none else 2


def queue_shape(config: Config) -> tuple[int, int]:
    """Return how many queues there are and the keys in each: K for all, or K // N for each."""
    num_queues = 1 if config.moco.feature_sharing else config.clients.num_clients
    return num_queues, config.moco.queue_length // num_queues


def build_split(config: Config) -> Split:
    """Build the backbone and cut it, with the random state that is there."""
    split = config.split
    bottleneck = bottleneck_of(
        split.bottleneck_channels,
        split.bottleneck_stride,
        kernel_size=split.bottleneck_kernel,
        relu=split.bottleneck_relu,
    )
    return split_backbone(
        config.backbone.name,
        width=config.backbone.width,
        image_size=config.dataset.image_size,
        cut_layer=split.cut_layer,
        bottleneck=bottleneck,
        client_residual=split.client_residual,
    )


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
    method = config.method
    head: nn.Module = split.head
    trunk: nn.Module = split.trunk
    if method.whole_network:
        head, trunk = WholeNetwork(split.head.units, projector), nn.Identity()
        projector = nn.Identity()
    clients = ClientPool(
        head,
        num_clients=config.clients.num_clients,
        pool_size=pool_size(config),
        momentum=config.moco.momentum,
        stateless=config.clients.client_state is ClientState.stateless,
        frozen=config.optimizer.client_lr == 0,
        averager=_build_averager(config, counts),
        ranks=ranks,
    )
    return Federation(
        clients,
        _build_server(config, trunk, projector),
        both_views=config.moco.symmetric is Symmetric.full and not method.supervised,
        align_momentum=method.align_momentum and not method.supervised,
        whole_network=method.whole_network,
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
    if config.method.supervised:
        return SupervisedServer(trunk, projector, config.dataset.num_classes)
    return Server(
        trunk,
        projector,
        _build_queue(config),
        temperature=config.moco.temperature,
        momentum=config.moco.momentum,
        two_sided=config.moco.symmetric is Symmetric.server,
    )


def build_projector(config: Config, split: Split) -> nn.Module:
    """Build the projector for a trunk's features; the classifier of a supervised method."""
    moco = config.moco
    if config.method.supervised:
        return Projector(
            split.feature_dim, hidden_dim=None, embedding_dim=config.dataset.num_classes
        )
    hidden = moco.projector_hidden
    if hidden is not None and moco.projector_expands:
        hidden *= split.expansion
    return Projector(
        split.feature_dim,
        hidden_dim=hidden,
        embedding_dim=moco.projector_dim,
        batch_norm=moco.projector_batch_norm,
    )


def _build_queue(config: Config) -> KeyQueue:
    num_queues, length = queue_shape(config)
    return KeyQueue(
        num_queues,
        length,
        dim=config.moco.projector_dim,
        generator=torch_generator(config.seed, "queue"),
    )


def build_attackers_decoder(config: Config) -> nn.Module:
    """Build what each simulated attacker starts from, with the random state that is there."""
    return build_decoder(
        config.taressfl.decoder,
        build_split(config).smashed_shape,
        image_size=config.dataset.image_size,
        batch_size=int(batch_sizes(config).min()),
    )


def build_attackers(config: Config, num_collapses: int = 0) -> AttackerPool | None:
    """Build the simulated attackers that heads learn to evade; None where there are none.

    Args:
        config: a valid configuration.
        num_collapses: after each, alpha is smaller by taressfl.collapse_alpha_factor.
    """
    taressfl = config.taressfl
    if taressfl.mode not in LEARNING:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_generator(config.seed, "attackers").initial_seed())
        decoder = build_attackers_decoder(config)
    alpha = taressfl.alpha * taressfl.collapse_alpha_factor**num_collapses
    return AttackerPool(
        decoder,
        Regulariser(alpha, taressfl.target_ssim, taressfl.decoder_lr),
        num_clients=config.clients.num_clients,
        pool_size=pool_size(config),
        mean=list(config.dataset.mean),
        std=list(config.dataset.std),
    )


def view_settings(config: Config) -> ViewSettings:
    """Return the distribution of the random views."""
    a = config.moco.augmentation
    return ViewSettings(
        crop_scale_min=a.crop_scale_min,
        crop_scale_max=a.crop_scale_max,
        ratio_min=a.crop_ratio_min,
        ratio_max=a.crop_ratio_max,
        brightness=a.brightness,
        contrast=a.contrast,
        saturation=a.saturation,
        hue=a.hue,
        jitter_probability=a.jitter_probability,
        grey_probability=a.grey_probability,
        blur_probability=a.blur_probability,
        blur_sigma_min=a.blur_sigma_min,
        blur_sigma_max=a.blur_sigma_max,
        flip_probability=a.flip_probability,
    )
