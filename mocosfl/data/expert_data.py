"""The data of an expert: a small part of the target data set, and an auxiliary one.

A batch is target rows and auxiliary rows, all of one head. Both parts are cycled over, each
reshuffled at every pass; a round is a pass over the auxiliary images. To the loader the two parts
are two clients, and to the head one: the partition numbers the target's images from 0 and the
auxiliary ones behind them.

Source: Li et al., MocoSFL, ICLR 2023, section 4.3.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl.config.derived import is_expert, part_batch_sizes
from mocosfl.config.schema import Config
from mocosfl.data.cache import Images
from mocosfl.data.federated_data import FederatedData
from mocosfl.data.loader import FederationShape, StepLoader, ViewBlock
from mocosfl.data.partition import Partition
from mocosfl.data.round_length import round_steps
from mocosfl.data.sources import load_dataset
from mocosfl.data.view_maker import ViewMaker, view_settings
from mocosfl.federation.ranks import ALONE, Ranks
from mocosfl.federation.step_input import ClientGroup, Step
from mocosfl.system.randomness import numpy_generator

_Ints = npt.NDArray[np.int64]


def open_data(config: Config, *, partition_file: Path | None = None) -> FederatedData:
    """Open the data of a run, an expert's or a federation's; see `FederatedData`."""
    if is_expert(config):
        return ExpertData(config)
    return FederatedData(config, partition_file=partition_file)


def num_target_images(config: Config, num_images: int) -> int:
    """Return how many of the target's training images an expert sees.

    Raises:
        ValueError: the fraction is above 0 and leaves none.
    """
    fraction = config.taressfl.target_fraction
    number = round(fraction * num_images)
    if fraction > 0 and number == 0:
        raise ValueError(
            f"taressfl.target_fraction={fraction}: leaves none of the {num_images} training images "
            f"of {config.dataset.name}; use at least {1 / num_images:.3g}, or 0 for none on purpose"
        )
    return number


class JoinedImages:
    """Images of two data sets, one numbered behind the other; nothing is copied."""

    def __init__(self, first: Images, second: Images) -> None:
        """Join images (N1, H, W, 3) and (N2, H, W, 3)."""
        assert first.shape[1:] == second.shape[1:]  # a rule of `validate`
        self.first, self.second = first, second
        self.shape = (len(first) + len(second), *first.shape[1:])
        self.dtype, self.ndim = first.dtype, first.ndim

    def __len__(self) -> int:
        """Images of both."""
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> Images:
        """Return some images, given as a slice or an array of numbers."""
        numbers = np.arange(len(self))[rows]
        behind = numbers >= len(self.first)
        pixels = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        pixels[~behind] = np.asarray(self.first[numbers[~behind]])
        pixels[behind] = np.asarray(self.second[numbers[behind] - len(self.first)])
        return pixels

    def __array__(self) -> npt.NDArray[Any]:
        """Return the pixels of all."""
        return np.asarray(self[:])


class ExpertData(FederatedData):
    """Loads both data sets; the kNN monitor looks at the target's training images."""

    def __init__(self, config: Config) -> None:
        """Read both data sets; see `FederatedData` for errors."""
        assert config.taressfl.auxiliary is not None  # a rule of `validate`
        # Before the base class deals the images out.
        self.auxiliary = load_dataset(config.taressfl.auxiliary, Path(config.data_dir))
        super().__init__(config)
        self.images = JoinedImages(self.dataset.train.images, self.auxiliary.train.images)
        self.steps_per_round = round_steps(config, self.partition.counts)

    def _deal(self, training: _Ints) -> Partition:
        """Take the target's part at random; the auxiliary images are numbered behind it."""
        number = num_target_images(self.config, len(training))
        generator = numpy_generator(self.config.seed, "target subset")
        target = np.sort(generator.permutation(training)[:number])
        start, length = len(self.dataset.train.labels), len(self.auxiliary.train.labels)
        auxiliary = np.arange(start, start + length)
        parts = [part for part in (target, auxiliary) if len(part)]
        offsets = np.cumsum([0, *(len(part) for part in parts)])
        return Partition(np.concatenate(parts), offsets)

    def view_maker(self, device: torch.device) -> ViewMaker:
        """Return the maker of views on a device."""
        dataset = self.config.dataset
        return ViewMaker(
            self.images,
            view_settings(self.config),
            mean=list(dataset.mean),
            std=list(dataset.std),
            device=device,
        )

    def step_loader(self, view_maker: ViewMaker, ranks: Ranks = ALONE) -> StepLoader:
        """Return the loader of all steps of the run; an expert is one head in one process."""
        assert ranks.number == 1  # a rule of `validate`
        sizes = part_batch_sizes(self.config)
        shape = FederationShape(
            seed=self.config.seed,
            num_rounds=self.config.clients.num_rounds,
            pool_size=len(sizes),
            batch_sizes=sizes,
            syncs_per_round=1,
            steps_per_round=self.steps_per_round,
            overfit_steps=self.config.trainer.overfit_steps,
        )
        return ExpertLoader(
            self.partition,
            shape,
            view_maker,
            block_images=self.config.trainer.view_block_images,
        )


class ExpertLoader(StepLoader):
    """Gives the rows of both parts to one head."""

    def _steps(self, block: ViewBlock, views: list[Tensor]) -> Iterator[Step]:
        for step in super()._steps(block, views):
            head = torch.zeros_like(step.pool[:1])
            group = ClientGroup(head, len(step.view1))
            yield step._replace(pool=head, groups=(group,), sync_due=False)
