"""What a taken-away encoder says of itself: enough to build it again, and where it comes from."""

from typing import NamedTuple, get_type_hints

import torch
from torch import nn

from mocosfl.models.split import bottleneck_of, split_backbone
from mocosfl.runs.checkpoint import Encoder
from mocosfl.system.metadata import from_metadata, to_metadata

FORMAT_VERSION = 1  # of the metadata and the names of the weights


class EncoderFacts(NamedTuple):
    """The network, its preprocessing, and what it was trained with."""

    backbone: str
    width: int  # channels of the first unit
    cut_layer: int | None  # units of the head; None: all, nothing was cut
    bottleneck_channels: int | None  # of the pair at the cut; None: no pair
    bottleneck_stride: int
    bottleneck_kernel: int
    bottleneck_relu: bool
    client_residual: bool  # whether the head's blocks have residual connections
    num_features: int  # F
    image_size: int  # S, pixels
    mean: tuple[float, ...]  # of each channel, images scaled to [0, 1]
    std: tuple[float, ...]
    dataset: str
    method: str
    num_clients: int
    step: int  # training steps behind it
    format_version: int = FORMAT_VERSION

    def to_metadata(self) -> dict[str, str]:
        """Return the facts as the metadata of a file."""
        return to_metadata(self._asdict())


def facts_of(encoder: Encoder) -> EncoderFacts:
    """Return the facts of an encoder that was read from a checkpoint."""
    config, split = encoder.config, encoder.config.split
    size = config.dataset.image_size
    with torch.no_grad():
        num_features = encoder.network(torch.zeros(1, 3, size, size)).shape[1]
    return EncoderFacts(
        backbone=config.backbone.name,
        width=config.backbone.width,
        cut_layer=split.cut_layer,
        bottleneck_channels=split.bottleneck_channels,
        bottleneck_stride=split.bottleneck_stride,
        bottleneck_kernel=split.bottleneck_kernel,
        bottleneck_relu=split.bottleneck_relu,
        client_residual=split.client_residual,
        num_features=num_features,
        image_size=size,
        mean=tuple(config.dataset.mean),
        std=tuple(config.dataset.std),
        dataset=config.dataset.name,
        method=config.method.name,
        num_clients=config.clients.num_clients,
        step=encoder.step,
    )


def encoder_facts_from_metadata(metadata: dict[str, str]) -> EncoderFacts:
    """Read the facts.

    Raises:
        KeyError, ValueError, TypeError: they are not there, or not as `to_metadata` writes them.
    """
    version = from_metadata(metadata, {"format_version": int})["format_version"]
    if version != FORMAT_VERSION:
        raise ValueError(f"format {version}, where this version of mocosfl reads {FORMAT_VERSION}")
    return EncoderFacts(**from_metadata(metadata, get_type_hints(EncoderFacts)))


def build_encoder_network(facts: EncoderFacts) -> nn.Sequential:
    """Build the network of some facts, head and trunk, with random weights.

    Raises:
        ValueError: the facts describe no network of ours.
    """
    pair = bottleneck_of(
        facts.bottleneck_channels,
        facts.bottleneck_stride,
        kernel_size=facts.bottleneck_kernel,
        relu=facts.bottleneck_relu,
    )
    split = split_backbone(
        facts.backbone,
        width=facts.width,
        image_size=facts.image_size,
        cut_layer=facts.cut_layer,
        bottleneck=pair,
        client_residual=facts.client_residual,
    )
    return nn.Sequential(split.head, split.trunk)
