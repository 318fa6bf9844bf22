"""The steps of a run, in order, each with its two views.

P: clients in the pool. b: images a client. S: steps a round.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl.data.augmentation import draw_uniforms
from mocosfl.data.partition import Partition
from mocosfl.data.round_plan import RoundPlan, plan_round
from mocosfl.data.step import Step
from mocosfl.data.view_maker import ViewMaker
from mocosfl.randomness import torch_generator

MAX_VIEW_BYTES = 2**28


class FederationShape(NamedTuple):
    """The numbers that say who trains on what, and when."""

    seed: int
    num_rounds: int
    steps_per_round: int
    pool_size: int
    batch_size: int
    syncs_per_round: int


class StepLoader:
    """Iterates over all steps of a run, from any step on.

    Everything about a step is a function of (seed, round, step), so a run that goes on from a
    checkpoint sees what it would have seen. `state_dict` is what Lightning puts in the checkpoint.
    """

    def __init__(
        self,
        partition: Partition,
        shape: FederationShape,
        view_maker: ViewMaker,
        *,
        block_images: int,
    ) -> None:
        """Put the loader together.

        Args:
            partition: indices of each client's images.
            shape: see `FederationShape`.
            view_maker: makes the views.
            block_images: images augmented at a time, at most; fewer where their views would take
                over 256 MB, and at least one step's.
        """
        self.partition, self.shape, self.view_maker = partition, shape, view_maker
        rows = shape.pool_size * shape.batch_size
        fitting = MAX_VIEW_BYTES // (2 * 3 * 4 * view_maker.image_size**2)  # two views, fp32
        self.block_steps = max(1, min(block_images, fitting) // rows)
        self.next_step = 0

    def __len__(self) -> int:
        """Steps of the whole run."""
        return self.shape.num_rounds * self.shape.steps_per_round

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        return {"next_step": self.next_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position."""
        self.next_step = state["next_step"]

    def __iter__(self) -> Iterator[Step]:
        """Yield the steps from the current position to the end of the run."""
        while self.next_step < len(self):
            round_index, step = divmod(self.next_step, self.shape.steps_per_round)
            yield from self._round(self._plan(round_index), step)

    def first_indices(self) -> npt.NDArray[np.int64]:
        """Return the image indices (S, P * b) of the first round's steps."""
        images = self._plan(0).images
        return images.reshape(len(images), -1)

    def _plan(self, round_index: int) -> RoundPlan:
        shape = self.shape
        return plan_round(
            self.partition,
            round_index,
            seed=shape.seed,
            pool_size=shape.pool_size,
            batch_size=shape.batch_size,
            syncs_per_round=shape.syncs_per_round,
        )

    def _round(self, plan: RoundPlan, first: int) -> Iterator[Step]:
        pool = torch.from_numpy(plan.pool).to(self.view_maker.device)
        for start in range(first, self.shape.steps_per_round, self.block_steps):
            steps = range(start, min(start + self.block_steps, self.shape.steps_per_round))
            view1, view2 = self._block(plan, steps)
            for place, step in enumerate(steps):
                self.next_step += 1
                yield Step(
                    view1[place],
                    view2[place],
                    pool,
                    round=plan.round,
                    new_round=step == 0,
                    sync_due=bool(plan.sync_due[step]),
                )

    def _block(self, plan: RoundPlan, steps: range) -> tuple[Tensor, Tensor]:
        indices = plan.images[steps.start : steps.stop]  # (steps, P, b)
        uniforms = torch.cat(
            [self._uniforms(plan.round, step, indices[0].size) for step in steps], dim=1
        )
        views = self.view_maker.views(indices.ravel(), uniforms)
        view1, view2 = (view.unflatten(0, indices.shape) for view in views)
        return view1, view2

    def _uniforms(self, round_index: int, step: int, num_images: int) -> Tensor:
        # A generator a step: what a step sees does not depend on the size of the blocks.
        generator = torch_generator(self.shape.seed, "views", round_index, step)
        return torch.stack([draw_uniforms(generator, num_images) for _ in range(2)])
