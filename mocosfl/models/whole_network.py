"""The whole network on a client: nothing is cut, and what leaves it are embeddings."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl.models.backbone import UnitSequence


class WholeNetwork(nn.Module):
    """Backbone, global average pool and projector (or classifier) as one client's network."""

    def __init__(self, units: UnitSequence, projector: nn.Module) -> None:
        super().__init__()
        self.units, self.projector = units, projector

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to embeddings (B, D), not yet normalised."""
        features = torch.flatten(F.adaptive_avg_pool2d(self.units(x), 1), 1)
        embeddings: Tensor = self.projector(features)
        return embeddings

    def encoder(self) -> nn.Module:
        """Return the part that is kept, images -> features (B, F); its modules are our own."""
        return nn.Sequential(self.units, nn.AdaptiveAvgPool2d(1), nn.Flatten())
