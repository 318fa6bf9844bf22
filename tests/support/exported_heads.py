"""Small exported heads of random weights."""

from pathlib import Path

import torch
from torch import nn

from mocosfl.config.schema import Config
from mocosfl.encoders.export_head import write_head
from mocosfl.models.build import build_split
from mocosfl.runs.checkpoint import Encoder

SMALL = ["dataset=cifar10", "backbone.width=8", "split=cut2_c4s2"]
"""Overrides of a small network: 3 x 32 x 32 -> 4 x 16 x 16."""


def make_encoder(config: Config, *, seed: int = 0) -> Encoder:
    """Return the encoder of a configuration, as it would be read from a checkpoint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        split = build_split(config)
        for parameter in split.head.parameters():  # norms start as ones and zeros
            parameter.data += 0.1 * torch.randn_like(parameter)
    network = nn.Sequential(split.head, split.trunk).requires_grad_(False).eval()
    return Encoder(network, config, 7, "made up")


def export_small(config: Config, file: Path, *, seed: int = 0) -> nn.Module:
    """Write the head of a configuration to a file; returns it."""
    encoder = make_encoder(config, seed=seed)
    write_head(encoder, file)
    head: nn.Module = encoder.network[0]  # type: ignore[index]
    return head
