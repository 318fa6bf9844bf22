"""What a run tells each of its remote clients, and expects of it."""

from dataclasses import asdict
from typing import NamedTuple

from torch import nn

from mocosfl.config.derived import (
    aligns_momentum,
    batch_sizes,
    is_frozen,
    num_remote,
    num_views,
    smashed_precision,
)
from mocosfl.config.schema import Config
from mocosfl.data.view_maker import view_settings
from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.server.client_requests import Expectation
from mocosfl.models.build import build_split


class RemoteClient(NamedTuple):
    """What a run tells one remote client, and expects of it."""

    settings: pb.Settings
    expectation: Expectation


def make_remote_clients(
    config: Config, head: nn.Module, steps_per_round: int
) -> dict[int, RemoteClient]:
    """Return settings and expectations of the remote clients, by id.

    Args:
        config: a valid configuration with `edge`.
        head: of the shape that all clients have.
        steps_per_round: S.

    Raises:
        ValueError: a step's smashed data are more than a message may hold.
    """
    sizes = batch_sizes(config)
    shape = build_split(config).smashed_shape
    common = _settings(config, head, steps_per_round, shape)
    clients: dict[int, RemoteClient] = {}
    for client in range(num_remote(config)):
        settings = pb.Settings()
        settings.CopyFrom(common)
        settings.batch_size = int(sizes[client])
        clients[client] = RemoteClient(settings, expectation(settings))
        largest = clients[client].expectation.max_message_bytes
        if largest > wire.MAX_MESSAGE_BYTES:
            raise ValueError(
                f"clients.batch_size={sizes[client]}: the smashed data of a step take "
                f"{largest:,} bytes, and a message may have {wire.MAX_MESSAGE_BYTES:,}; use a "
                "smaller batch, a bottleneck (split=cut1_c4s2), or edge.precision=fp16"
            )
    return clients


def expectation(settings: pb.Settings) -> Expectation:
    """Return what the tensors of a client with these settings must look like."""
    return Expectation(
        wire.smashed_shape(settings),
        settings.smashed_dtype,
        settings.num_parameters,
        settings.compute_dtype,
        settings.align_momentum,
        settings.frozen,
    )


def _settings(
    config: Config, head: nn.Module, steps_per_round: int, shape: tuple[int, int, int]
) -> pb.Settings:
    split, optimizer = config.split, config.optimizer
    channels = split.bottleneck_channels
    return pb.Settings(
        seed=config.seed,
        network=pb.Network(
            backbone=config.backbone.name,
            width=config.backbone.width,
            cut_layer=split.cut_layer or 0,
            bottleneck_channels=channels or 0,
            bottleneck_stride=split.bottleneck_stride,
            bottleneck_kernel=split.bottleneck_kernel,
            bottleneck_relu=split.bottleneck_relu,
            client_residual=split.client_residual,
        ),
        views=pb.Views(**asdict(view_settings(config))),
        image_size=config.dataset.image_size,
        mean=list(config.dataset.mean),
        std=list(config.dataset.std),
        steps_per_round=steps_per_round,
        both_views=num_views(config) == 2,
        frozen=is_frozen(config),
        align_momentum=aligns_momentum(config),
        tau=config.moco.momentum,
        sgd_momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        smashed_dtype=wire.DTYPES[smashed_precision(config)],
        compute_dtype=pb.FP64 if config.trainer.precision == "fp64" else pb.FP32,
        smashed_shape=shape,
        num_parameters=sum(p.numel() for p in head.parameters()),
    )
