"""From the configuration to a network: the backbone, cut in two, and the projector."""

from torch import nn

from mocosfl.config.derived import is_supervised
from mocosfl.config.schema import Config
from mocosfl.models.projector import Projector
from mocosfl.models.split import Split, bottleneck_of, split_backbone


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


def build_projector(config: Config, split: Split) -> nn.Module:
    """Build the projector for a trunk's features; the classifier of a supervised method."""
    moco = config.moco
    if is_supervised(config):
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
