"""The data of a run: images, who holds which, the loader, and what the kNN monitor looks at."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from mocosfl.config.choices import PartitionKind
from mocosfl.config.derived import (
    batch_sizes,
    is_supervised,
    num_rich_clients,
    pool_size,
    remote_clients,
)
from mocosfl.config.schema import Config
from mocosfl.data.cache import ImageDataset
from mocosfl.data.loader import FederationShape, StepLoader
from mocosfl.data.partition import Partition, make_partition
from mocosfl.data.partition_file import read_partition
from mocosfl.data.picture_array import PictureArray, PictureViewMaker
from mocosfl.data.rich_poor import check_rich_share, deal_rich_and_poor
from mocosfl.data.round_length import round_steps
from mocosfl.data.sources import load_dataset
from mocosfl.data.view_maker import ViewMaker, view_settings
from mocosfl.federation.ranks import ALONE, Ranks
from mocosfl.system.randomness import numpy_generator

_Ints = npt.NDArray[np.int64]


class MonitorImages(NamedTuple):
    """Indices of training images for the kNN monitor."""

    bank: _Ints
    queries: _Ints | None  # None: leave-one-out within the bank


class FederatedData:
    """Loads the images, deals them to the clients, and makes the steps."""

    def __init__(self, config: Config, *, partition_file: Path | None = None) -> None:
        """Read the data set's cache (filling it where needed) and deal the images out.

        Args:
            config: a valid configuration.
            partition_file: what to read for `partition=file` in place of partition.path: a run
                that goes on has a copy of its own.

        Raises:
            ValueError: the images and the configuration do not fit together.
            FileNotFoundError: the data set is not there and cannot be fetched.
        """
        self.config, self._partition_file = config, partition_file
        self.dataset: ImageDataset = load_dataset(config.dataset, Path(config.data_dir))
        training, held_out = self._hold_out()
        self.monitor = self._monitor(training, held_out)
        self.partition = self._deal(training)
        self.steps_per_round = round_steps(config, self.partition.counts)

    def _hold_out(self) -> tuple[_Ints, _Ints]:
        """Return the training images' indices and those kept from training."""
        num_images = len(self.dataset.train.labels)
        fraction = self.config.callbacks.knn_held_out_fraction
        if fraction == 0:
            return np.arange(num_images), np.arange(0)
        order = numpy_generator(self.config.seed, "held_out").permutation(num_images)
        num_held_out = int(fraction * num_images)
        if num_held_out == 0:
            raise ValueError(
                f"callbacks.knn_held_out_fraction={fraction}: holds out none of {num_images} "
                "training images; raise it, or set it to 0 (leave-one-out)"
            )
        return np.sort(order[num_held_out:]), np.sort(order[:num_held_out])

    def _monitor(self, training: _Ints, held_out: _Ints) -> MonitorImages:
        callbacks = self.config.callbacks
        generator = numpy_generator(self.config.seed, "monitor")

        def sample(indices: _Ints) -> _Ints:
            number = min(len(indices), callbacks.knn_num_images)
            return np.sort(generator.choice(indices, number, replace=False))

        bank = sample(training)
        queries = sample(held_out) if len(held_out) else None
        neighbours = len(bank) - (1 if queries is None else 0)
        if callbacks.knn_every_rounds and callbacks.knn_num_neighbors > neighbours:
            raise ValueError(
                f"callbacks.knn_num_neighbors={callbacks.knn_num_neighbors}: the monitor has only "
                f"{neighbours} training images to choose from; use at most that many"
            )
        return MonitorImages(bank, queries)

    def _deal(self, training: _Ints) -> Partition:
        config = self.config
        if config.partition.kind is PartitionKind.file:
            assert config.partition.path is not None  # a rule of `validate`
            partition = read_partition(
                str(self._partition_file or config.partition.path),
                num_clients=config.clients.num_clients,
                training=training,
                num_images=len(self.dataset.train.labels),
            )
            check_rich_share(
                partition,
                num_rich=num_rich_clients(config),
                rich_data_fraction=config.heterogeneity.rich_data_fraction,
            )
            return partition
        labels, num_rich = self.dataset.train.labels[training], num_rich_clients(config)
        if num_rich == 0:
            partition = self._among_equals(labels, config.clients.num_clients)
        else:
            partition = deal_rich_and_poor(
                self._among_equals,
                labels,
                num_rich=num_rich,
                num_clients=config.clients.num_clients,
                rich_data_fraction=config.heterogeneity.rich_data_fraction,
                seed=config.seed,
            )
        return Partition(training[partition.order], partition.offsets)

    def _among_equals(self, labels: _Ints, num_clients: int, *stream: str) -> Partition:
        settings = self.config.partition
        return make_partition(
            settings.kind.name,
            labels,
            num_clients=num_clients,
            num_classes=self.config.dataset.num_classes,
            seed=self.config.seed,
            classes_per_client=settings.classes_per_client,
            alpha=settings.alpha,
            min_images=settings.min_images,
            stream=stream,
        )

    def view_maker(self, device: torch.device) -> ViewMaker:
        """Return the maker of views on a device."""
        images, settings = self.dataset.train.images, view_settings(self.config)
        dataset = self.config.dataset
        mean, std = list(dataset.mean), list(dataset.std)
        if isinstance(images, PictureArray):
            return PictureViewMaker(images, settings, mean=mean, std=std, device=device)
        return ViewMaker(images, settings, mean=mean, std=std, device=device)

    def step_loader(self, view_maker: ViewMaker, ranks: Ranks = ALONE) -> StepLoader:
        """Return the loader of all steps of the run, for one of its processes."""
        clients, method = self.config.clients, self.config.method
        shape = FederationShape(
            seed=self.config.seed,
            num_rounds=clients.num_rounds,
            pool_size=pool_size(self.config),
            batch_sizes=batch_sizes(self.config),
            syncs_per_round=clients.syncs_per_round,
            local_epochs=method.local_epochs,
            dropout_probability=clients.dropout_probability,
            num_views=1 if is_supervised(self.config) else 2,
            overfit_steps=self.config.trainer.overfit_steps,
        )
        return StepLoader(
            self.partition,
            shape,
            view_maker,
            block_images=self.config.trainer.view_block_images,
            labels=self.dataset.train.labels if is_supervised(self.config) else None,
            ranks=ranks,
            remote=remote_clients(self.config),
        )
