"""From the configuration to the parts that train."""

from typing import Any

import torch
from omegaconf import OmegaConf

from mocosfl.client_pool import ClientPool
from mocosfl.config import ClientState, Config, Symmetric
from mocosfl.data.augmentation import ViewSettings
from mocosfl.federation import Federation
from mocosfl.models.projector import Projector
from mocosfl.models.split import Bottleneck, Split, split_backbone
from mocosfl.module import MocoSFL, OptimizerSettings
from mocosfl.queue import KeyQueue
from mocosfl.randomness import torch_generator
from mocosfl.server import Server


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
    """Return how many clients, the first ones, are rich; 0 where all are alike."""
    return round(config.heterogeneity.rich_fraction * config.clients.num_clients)


def keys_per_row(config: Config) -> int:
    """Return how many keys a step enqueues for each image: 2 where the loss is two-sided."""
    return 1 if config.moco.symmetric is Symmetric.none else 2


def build_split(config: Config) -> Split:
    """Build the backbone and cut it, with the random state that is there."""
    split = config.split
    bottleneck = None
    if split.bottleneck_channels is not None:
        bottleneck = Bottleneck(
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


def build_federation(config: Config) -> Federation:
    """Build clients and server; a pure function of the configuration and its seed."""
    # Layers draw their start values from PyTorch's global generator; it is put back behind us.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_generator(config.seed, "weights").initial_seed())
        split = build_split(config)
        projector = build_projector(config, split)
    clients = ClientPool(
        split.head,
        num_clients=config.clients.num_clients,
        pool_size=pool_size(config),
        momentum=config.moco.momentum,
        stateless=config.clients.client_state is ClientState.stateless,
        frozen=config.optimizer.client_lr == 0,
    )
    server = Server(
        split.trunk,
        projector,
        _build_queue(config),
        temperature=config.moco.temperature,
        momentum=config.moco.momentum,
        two_sided=config.moco.symmetric is Symmetric.server,
    )
    return Federation(
        clients,
        server,
        both_views=config.moco.symmetric is Symmetric.full,
        align_momentum=config.method.align_momentum,
    )


def build_projector(config: Config, split: Split) -> Projector:
    """Build the projector for a trunk's features."""
    moco = config.moco
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
    num_queues = 1 if config.moco.feature_sharing else config.clients.num_clients
    return KeyQueue(
        num_queues,
        config.moco.queue_length // num_queues,
        dim=config.moco.projector_dim,
        generator=torch_generator(config.seed, "queue"),
    )


def build_module(config: Config, steps_per_round: int) -> MocoSFL:
    """Build what Lightning trains."""
    optimizer = config.optimizer
    settings = OptimizerSettings(
        server_lr=optimizer.server_lr,
        client_lr=optimizer.client_lr,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        schedule=optimizer.schedule.name,
        client_schedule=optimizer.client_schedule.name,
        step_decay_server=optimizer.step_decay_server,
        step_decay_client=optimizer.step_decay_client,
    )
    return MocoSFL(
        build_federation(config),
        settings,
        num_rounds=config.clients.num_rounds,
        steps_per_round=steps_per_round,
        config=plain(config),
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
