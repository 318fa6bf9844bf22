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
from mocosfl.data.shard import Groups, Shard, shard_step
from mocosfl.data.view_maker import ViewMaker
from mocosfl.federation.ranks import ALONE, Ranks
from mocosfl.federation.step_input import ClientGroup, Everyone, Step
from mocosfl.system.randomness import torch_generator

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
    overfit_steps: int = 0  # all see the images and views of the first so many; 0: off


class ViewBlock(NamedTuple):
    """Some consecutive steps of a round, and the images they need."""

    plan: RoundPlan
    steps: range
    groups: list[Groups]  # of each step, of all processes
    shards: list[Shard]  # of each step, this process's part
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
        ranks: Ranks = ALONE,
        remote: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Put the loader together.

        Args:
            partition: indices of each client's images.
            shape: see `FederationShape`.
            view_maker: makes the views.
            block_images: images augmented at a time, at most; fewer where their views would take
                over 256 MB, and at least one step's.
            labels: of all training images, for methods that learn from them; None for the others.
            ranks: the process among those that share each pool: it sees its own clients' images.
            remote: (N,) whether a client is another machine, which makes its views itself: the
                steps then have the rows of the others alone, and the groups of all.
        """
        self.partition, self.shape, self.view_maker = partition, shape, view_maker
        self.labels, self.ranks, self.remote = labels, ranks, remote
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
            views = self._views(block)
            following = next(blocks, None)
            if following is not None and len(following.indices):
                self.view_maker.prefetch(following.indices, following.uniforms)
            yield from self._steps(block, views)
            block = following

    def _views(self, block: ViewBlock) -> list[Tensor]:
        if len(block.indices):
            return self.view_maker.views(block.indices, block.uniforms)
        # None of this process's clients is there.
        size, device = self.view_maker.image_size, self.view_maker.device
        return [torch.empty(0, 3, size, size, device=device)] * self.shape.num_views

    def first_indices(self) -> list[_Ints]:
        """Return the image indices of each step of the first round."""
        plan = self._plan(0)
        return [self._rows(plan, step)[1] for step in range(self.steps_per_round)]

    def _plan(self, round_index: int) -> RoundPlan:
        shape = self.shape
        plan = plan_round(
            self.partition,
            self._seen_as(round_index, 0)[0],
            seed=shape.seed,
            pool_size=shape.pool_size,
            batch_sizes=shape.batch_sizes,
            syncs_per_round=shape.syncs_per_round,
            num_steps=self.steps_per_round,
            dropout_probability=shape.dropout_probability,
        )
        return plan._replace(round=round_index)

    def _seen_as(self, round_index: int, step: int) -> tuple[int, int]:
        """Return the round and the step in it whose images and views a step has: its own ones."""
        number = self.shape.overfit_steps
        return (0, step % number) if number else (round_index, step)

    def _blocks(self) -> Iterator[ViewBlock]:
        """Yield blocks from the current position to the end of the run."""
        first_round, first_step = divmod(self.next_step, self.steps_per_round)
        for round_index in range(first_round, self.shape.num_rounds):
            plan = self._plan(round_index)
            own = plan.pool[self.ranks.own(len(plan.pool))]
            rows = int(self.shape.batch_sizes[own].sum())
            length = max(1, self.block_images // rows)
            start = first_step if round_index == first_round else 0
            for step in range(start, self.steps_per_round, length):
                yield self._block(plan, range(step, min(step + length, self.steps_per_round)))

    def _block(self, plan: RoundPlan, steps: range) -> ViewBlock:
        groups, indices = zip(*(self._rows(plan, step) for step in steps), strict=True)
        shards = [shard_step(one, self.ranks) for one in groups]
        own = [part.own & self._here(plan, one) for one, part in zip(groups, shards, strict=True)]
        own_indices = [rows[mine] for rows, mine in zip(indices, own, strict=True)]
        # The numbers of all rows are drawn: a row's must not depend on whose the others are.
        uniforms = [
            self._uniforms(plan.round, step, len(mine))[:, torch.from_numpy(mine)]
            for step, mine in zip(steps, own, strict=True)
        ]
        return ViewBlock(
            plan,
            steps,
            list(groups),
            shards,
            [len(rows) for rows in own_indices],
            np.concatenate(own_indices),
            torch.cat(uniforms, dim=1),
        )

    def _rows(self, plan: RoundPlan, step: int) -> tuple[Groups, _Ints]:
        """Return the groups of a step, (places, batch size), and its image indices in row order."""
        _, step = self._seen_as(plan.round, step)
        groups, indices = [], []
        for places, images in plan.groups:
            there = plan.present[step, places]
            if there.any():
                groups.append((places[there], images.shape[2]))
                indices.append(images[step, there].ravel())
        return groups, np.concatenate(indices)

    def _here(self, plan: RoundPlan, groups: Groups) -> npt.NDArray[np.bool_]:
        """Return whether a row of a step is a simulated client's, (B,)."""
        rows = [np.repeat(plan.pool[places], size) for places, size in groups]
        clients = np.concatenate(rows)
        if self.remote is None:
            return np.ones(len(clients), dtype=bool)
        return ~self.remote[clients]

    def _steps(self, block: ViewBlock, views: list[Tensor]) -> Iterator[Step]:
        pool = self._on_device(block.plan.pool)
        own = pool[self.ranks.own(len(pool))]
        by_step = [view.split(block.rows) for view in views]
        images = np.split(block.indices, np.cumsum(block.rows)[:-1])
        for place, step in enumerate(block.steps):
            shard = block.shards[place]
            self.next_step += 1
            yield Step(
                by_step[0][place],
                by_step[1][place] if len(views) > 1 else None,
                None if self.labels is None else self._on_device(self.labels[images[place]]),
                own,
                self._client_groups(shard.groups),
                round=block.plan.round,
                number=step,
                new_round=step == 0,
                sync_due=bool(block.plan.sync_due[step]),
                everyone=self._everyone(pool, block.groups[place], shard),
            )

    def _everyone(self, pool: Tensor, groups: Groups, shard: Shard) -> Everyone | None:
        if self.ranks.number == 1:
            return None
        starts = tuple(self._on_device(start) for start in shard.starts)
        return Everyone(pool, self._client_groups(groups), starts, shard.num_rows)

    def _client_groups(self, groups: Groups) -> tuple[ClientGroup, ...]:
        return tuple(ClientGroup(self._on_device(places), size) for places, size in groups)

    def _on_device(self, numbers: _Ints) -> Tensor:
        return torch.from_numpy(numbers).to(self.view_maker.device)

    def _uniforms(self, round_index: int, step: int, num_images: int) -> Tensor:
        # A generator a step: what a step sees does not depend on the size of the blocks.
        generator = torch_generator(self.shape.seed, "views", *self._seen_as(round_index, step))
        return torch.stack(
            [draw_uniforms(generator, num_images) for _ in range(self.shape.num_views)]
        )
