"""The network of a configuration as it lies on a client and on the server, for counting only."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mocosfl.build import build_projector, build_split
from mocosfl.config import Config
from mocosfl.models.split import split_backbone


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
    whole = config.method.whole_network
    with torch.device(device):
        if whole:
            # Any cut will do, because both sides are the client's.
            split = split_backbone(
                config.backbone.name,
                width=config.backbone.width,
                image_size=config.dataset.image_size,
                cut_layer=1,
            )
        else:
            split = build_split(config)
        last: nn.Module = (
            nn.Linear(split.feature_dim, config.dataset.num_classes)
            if config.method.supervised
            else build_projector(config, split)
        )
    return Network(split.head, split.trunk, last, None if whole else split.smashed_shape)


def num_parameters(module: nn.Module) -> int:
    """Return how many numbers are trained."""
    return sum(parameter.numel() for parameter in module.parameters())


def num_values(module: nn.Module) -> int:
    """Return how many numbers make up a module's state: parameters and running statistics.

    BatchNorm's running mean and variance are needed to use the network and travel with it; its
    count of batches is read by no formula and does not. With them the paper's table 1 comes out
    (8269.2 MB for FL-SSL with the large_v2 projector); without, 8266.0.
    """
    buffers = sum(buffer.numel() for buffer in module.buffers() if buffer.is_floating_point())
    return num_parameters(module) + buffers


class ClientKind(NamedTuple):
    """Clients that are alike."""

    name: str  # all, or rich and poor
    number: int  # clients of this kind
    batch_size: int  # b, images a step


def client_kinds(config: Config) -> list[ClientKind]:
    """Return the kinds of clients that there are, the rich first."""
    number, batch_size = config.clients.num_clients, config.clients.batch_size
    rich = round(config.heterogeneity.rich_fraction * number)
    kinds = [
        ClientKind("rich", rich, batch_size * config.heterogeneity.rich_batch_factor),
        ClientKind("poor", number - rich, batch_size),
    ]
    return kinds if rich else [ClientKind("all", number, batch_size)]


def batch_sizes(config: Config) -> npt.NDArray[np.int64]:
    """Return b of each client, (N,)."""
    kinds = client_kinds(config)
    return np.repeat([kind.batch_size for kind in kinds], [kind.number for kind in kinds])
