"""The network of a configuration as it lies on a client and on the server, for counting only."""

from typing import NamedTuple

import torch
from torch import nn

from mocosfl.config.derived import is_whole_network
from mocosfl.config.schema import Config
from mocosfl.models.build import build_projector, build_split


class Network(NamedTuple):
    """Parts of the network, in forward order."""

    head: nn.Module  # images (B, 3, H, W) -> smashed data; on the client
    trunk: nn.Module  # smashed data -> features (B, F)
    projector: nn.Module  # features -> embeddings (B, D); with labels: class scores (B, C)
    smashed_shape: tuple[int, int, int] | None  # (c, h, w) of one image; None: nothing is cut

    @property
    def client(self) -> nn.Module:
        """What a client runs."""
        return self.head if self.smashed_shape else nn.Sequential(*self[:3])

    @property
    def server(self) -> nn.Module | None:
        """What the server runs; None where it only averages."""
        return nn.Sequential(self.trunk, self.projector) if self.smashed_shape else None


def build_network(config: Config, device: str = "meta") -> Network:
    """Build the parts; on the meta device that gives shapes and sizes, with nothing allocated."""
    with torch.device(device):
        split = build_split(config)
        last = build_projector(config, split)
    shape = None if is_whole_network(config) else split.smashed_shape
    return Network(split.head, split.trunk, last, shape)


def num_parameters(module: nn.Module) -> int:
    """Return how many numbers are trained."""
    return sum(parameter.numel() for parameter in module.parameters())


def num_values(module: nn.Module) -> int:
    """Return how many numbers the paper counts: parameters, and BatchNorm's mean and variance.

    With the running statistics its table 1 comes out (8269.2 MB for FL-SSL with the large_v2
    projector); without, 8266.0. Ours keep none on a client (`FoldedBatchNorm1d`).
    """
    buffers = sum(buffer.numel() for buffer in module.buffers() if buffer.is_floating_point())
    return num_parameters(module) + buffers
