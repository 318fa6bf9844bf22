"""Rules for the network and for the queue of keys."""

from collections.abc import Iterator

import numpy as np
import torch

from mocosfl.config.derived import batch_sizes, keys_per_row, pool_size, queue_shape
from mocosfl.config.schema import Config
from mocosfl.models.build import build_projector, build_split
from mocosfl.models.split import BACKBONES
from mocosfl.models.vgg import STAGE_CONVS
from mocosfl.rules.bounds import MIN_IMAGE_SIZE

BOTTLENECK_STRIDES = (1, 2, 4)


def queue_rules(config: Config) -> Iterator[str]:
    """Yield a line if a step's keys do not fit into the queue."""
    moco, clients = config.moco, config.clients
    known = 0 < clients.participation <= 1 and 0 <= config.heterogeneity.rich_fraction < 1
    if config.method.supervised or clients.num_clients < 1 or not known:
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


def network_rules(config: Config) -> Iterator[str]:
    """Yield a line if the network cannot be built as asked."""
    split = config.split
    if not split.client_residual and config.backbone.name in STAGE_CONVS:
        yield "split.client_residual=false: a VGG has no residual connections; set it to true"
    if split.bottleneck_channels is not None and split.bottleneck_channels < 1:
        yield f"split.bottleneck_channels={split.bottleneck_channels}: at least 1, or null"
        return
    if split.bottleneck_channels is None and split.bottleneck_stride != 1:
        yield (
            f"split.bottleneck_stride={split.bottleneck_stride}: there is no bottleneck; set "
            "split.bottleneck_channels too, or leave the stride at 1"
        )
    if split.bottleneck_kernel < 1 or split.bottleneck_kernel % 2 == 0:
        yield f"split.bottleneck_kernel={split.bottleneck_kernel}: must be odd and at least 1"
        return
    if split.bottleneck_stride not in BOTTLENECK_STRIDES:
        return  # reported among the choices
    if config.moco.projector_batch_norm and config.moco.projector_hidden is None:
        yield (
            "moco.projector_batch_norm=true: a linear projector (moco.projector_hidden=null) has "
            "no hidden layer to normalise; set it to false"
        )
    hidden = config.moco.projector_hidden
    if config.backbone.name not in BACKBONES:
        return  # reported among the choices
    if config.dataset.image_size < MIN_IMAGE_SIZE or config.moco.projector_dim < 1:
        return  # reported among the ranges, and cannot be built
    if hidden is not None and hidden < 1:
        return
    try:
        # On the meta device shapes are computed and nothing is allocated.
        with torch.device("meta"):
            build_projector(config, build_split(config))
    except ValueError as error:
        yield str(error)
