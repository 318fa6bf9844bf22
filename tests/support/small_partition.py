"""Few small images, dealt to six clients, and their views."""

from typing import Any

import numpy as np
import torch

from mocosfl.data.augmentation import ViewSettings
from mocosfl.data.loader import FederationShape
from mocosfl.data.partition import Partition
from mocosfl.data.view_maker import ViewMaker
from tests.support.view_settings import IDENTITY, RANDOM

SIZES = (9, 12, 6, 8, 1, 12)  # images of each client; one has fewer than a step takes
PARTITION = Partition(
    np.random.default_rng(0).permutation(sum(SIZES)), np.concatenate([[0], np.cumsum(SIZES)])
)
SHAPE = FederationShape(
    seed=5, num_rounds=3, pool_size=3, batch_sizes=np.full(6, 2), syncs_per_round=2
)
# Image i is of one colour, i.
NUMBERED = np.broadcast_to(np.arange(48, dtype=np.uint8)[:, None, None, None], (48, 8, 8, 3))
PATTERNS = np.random.default_rng(1).integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)


def view_maker(images: Any = PATTERNS, settings: ViewSettings = RANDOM) -> ViewMaker:
    """Return a maker of 8 x 8 views on the CPU."""
    mean, std = ([0.0] * 3, [1.0] * 3) if settings is IDENTITY else ([0.5] * 3, [0.25] * 3)
    return ViewMaker(images, settings, mean=mean, std=std, device=torch.device("cpu"))
