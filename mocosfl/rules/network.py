"""Rules for the network: the backbone, its cut and the projector."""

from collections.abc import Iterator

import torch

from mocosfl.config.schema import Config
from mocosfl.models.build import build_projector, build_split
from mocosfl.models.vgg import STAGE_CONVS
from mocosfl.rules.data import MIN_IMAGE_SIZE


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
    if config.moco.projector_batch_norm and config.moco.projector_hidden is None:
        yield (
            "moco.projector_batch_norm=true: a linear projector (moco.projector_hidden=null) has "
            "no hidden layer to normalise; set it to false"
        )
    hidden = config.moco.projector_hidden
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
