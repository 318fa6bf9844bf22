"""What the data side hands to the training side.

P: clients in the pool. b: images a client.
"""

from typing import NamedTuple

from torch import Tensor


class Step(NamedTuple):
    """One training step of the pool."""

    view1: Tensor  # (P, b, 3, H, W) normalised, on the training device
    view2: Tensor  # (P, b, 3, H, W)
    pool: Tensor  # (P,) ids of the clients, in row order
    round: int  # counted from 0
    new_round: bool  # whether the pool may have changed
    sync_due: bool  # whether the heads are averaged after this step
