"""The steps of a run, in order, each with its views.

P: clients in the pool. S: steps a round. R: images of a block of steps.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl.data.augmentation import draw_uniforms
from mocosfl.data.partition import Partition
from mocosfl.data.round_plan import RoundPlan, plan_round, steps_per_round
from mocosfl.data.view_maker import ViewMaker
from mocosfl.randomness import torch_generator
from mocosfl.step import ClientGroup, Step

MAX_VIEW_BYTES = 2**28

_Ints = npt.NDArray[np.int64]


class FederationShape(NamedTuple):
    """The numbers that say who trains on what, and when."""

    seed: int
    num_rounds: int
    pool_size: int
    batch_sizes: _Ints  # (N,) images a step of each client
    syncs_per_round: int
    local_epochs: int = 1  # passes over a client's images in a round
    dropout_probability: float = 0.0  # of a client missing a step
    num_views: int = 2  # of each image
    steps_per_round: int | None = None  # None: a pass over the mean client's images


class ViewBlock(NamedTuple):
    """Some consecutive steps of a round, and the images they need."""

    plan: RoundPlan
    steps: range
    groups: list[list[tuple[_Ints, int]]]  # of each step: (places, batch size)
    rows: list[int]  # images of each step
    indices: _Ints  # (R,)
    uniforms: Tensor  # (views, R, ...)


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
        labels: _Ints | None = None,
    ) -> None:
        """Put the loader together.

        Args:
            partition: indices of each client's images.
            shape: see `FederationShape`.
            view_maker: makes the views.
            block_images: images augmented at a time, at most; fewer where their views would take
                over 256 MB, and at least one step's.
            labels: of all training images, for methods that learn from them; None for the others.
        """
        self.partition, self.shape, self.view_maker = partition, shape, view_maker
        self.labels = labels
        self.steps_per_round = shape.steps_per_round or steps_per_round(
            partition.counts, shape.batch_sizes, local_epochs=shape.local_epochs
        )
        # Views of an image, fp32.
        fitting = MAX_VIEW_BYTES // (shape.num_views * 3 * 4 * view_maker.image_size**2)
        self.block_images = min(block_images, fitting)
        self.next_step = 0

    def __len__(self) -> int:
        """Steps of the whole run."""
        return self.shape.num_rounds * self.steps_per_round

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        return {"next_step": self.next_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position."""
        self.next_step = state["next_step"]

    def __iter__(self) -> Iterator[Step]:
        """Yield the steps from the current position to the end of the run."""
        # A block is announced before the one before it trains, so that slow pictures are decoded
        # meanwhile.
        blocks = self._blocks()
        block = next(blocks, None)
        while block is not None:
            views = self.view_maker.views(block.indices, block.uniforms)
            following = next(blocks, None)
            if following is not None:
                self.view_maker.prefetch(following.indices, following.uniforms)
            yield from self._steps(block, views)
            block = following

    def first_indices(self) -> list[_Ints]:
        """Return the image indices of each step of the first round."""
        plan = self._plan(0)
        return [self._rows(plan, step)[1] for step in range(self.steps_per_round)]

    def _plan(self, round_index: int) -> RoundPlan:
        shape = self.shape
        return plan_round(
            self.partition,
            round_index,
            seed=shape.seed,
            pool_size=shape.pool_size,
            batch_sizes=shape.batch_sizes,
            syncs_per_round=shape.syncs_per_round,
            num_steps=self.steps_per_round,
            dropout_probability=shape.dropout_probability,
        )

    def _blocks(self) -> Iterator[ViewBlock]:
        """Yield blocks from the current position to the end of the run."""
        first_round, first_step = divmod(self.next_step, self.steps_per_round)
        for round_index in range(first_round, self.shape.num_rounds):
            plan = self._plan(round_index)
            rows = int(self.shape.batch_sizes[plan.pool].sum())
            length = max(1, self.block_images // rows)
            start = first_step if round_index == first_round else 0
            for step in range(start, self.steps_per_round, length):
                yield self._block(plan, range(step, min(step + length, self.steps_per_round)))

    def _block(self, plan: RoundPlan, steps: range) -> ViewBlock:
        groups, indices = zip(*(self._rows(plan, step) for step in steps), strict=True)
        rows = [len(images) for images in indices]
        uniforms = [
            self._uniforms(plan.round, step, number)
            for step, number in zip(steps, rows, strict=True)
        ]
        return ViewBlock(
            plan, steps, list(groups), rows, np.concatenate(indices), torch.cat(uniforms, dim=1)
        )

    def _rows(self, plan: RoundPlan, step: int) -> tuple[list[tuple[_Ints, int]], _Ints]:
        """Return the groups of a step, (places, batch size), and its image indices in row order."""
        groups, indices = [], []
        for places, images in plan.groups:
            there = plan.present[step, places]
            if there.any():
                groups.append((places[there], images.shape[2]))
                indices.append(images[step, there].ravel())
        return groups, np.concatenate(indices)

    def _steps(self, block: ViewBlock, views: list[Tensor]) -> Iterator[Step]:
        device = self.view_maker.device
        pool = torch.from_numpy(block.plan.pool).to(device)
        by_step = [view.split(block.rows) for view in views]
        images = np.split(block.indices, np.cumsum(block.rows)[:-1])
        for place, step in enumerate(block.steps):
            labels = None
            if self.labels is not None:
                labels = torch.from_numpy(self.labels[images[place]]).to(device)
            self.next_step += 1
            yield Step(
                by_step[0][place],
                by_step[1][place] if len(views) > 1 else None,
                labels,
                pool,
                tuple(
                    ClientGroup(torch.from_numpy(places).to(device), batch_size)
                    for places, batch_size in block.groups[place]
                ),
                round=block.plan.round,
                number=step,
                new_round=step == 0,
                sync_due=bool(block.plan.sync_due[step]),
            )

    def _uniforms(self, round_index: int, step: int, num_images: int) -> Tensor:
        # A generator a step: what a step sees does not depend on the size of the blocks.
        generator = torch_generator(self.shape.seed, "views", round_index, step)
        return torch.stack(
            [draw_uniforms(generator, num_images) for _ in range(self.shape.num_views)]
        )
