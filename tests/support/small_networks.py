"""Small networks of each backbone, and images for them."""

from typing import Any

import torch
from torch import Tensor

from mocosfl.models.split import Split, split_backbone

WIDTH = 8


def make_split(name: str = "resnet18", *, cut_layer: int = 1, seed: int = 0, **more: Any) -> Split:
    """Build a small split from a seed."""
    settings = {"width": WIDTH, "image_size": 32, **more}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return split_backbone(name, cut_layer=cut_layer, **settings)


def images(batch: int = 2, size: int = 32, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return (batch, 3, size, size) standard normal pixels."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(batch, 3, size, size, generator=generator, dtype=dtype)
