"""How many images each client holds, with the data set at hand or without."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mocosfl.config.choices import PartitionKind
from mocosfl.config.derived import data_sets, is_expert, num_rich_clients
from mocosfl.config.schema import Config, DatasetConfig
from mocosfl.data.expert_data import num_target_images, open_data
from mocosfl.data.partition import check_num_clients, equal_offsets
from mocosfl.data.partition_file import load_partition


class Cohort(NamedTuple):
    """Images of all clients."""

    counts: npt.NDArray[np.int64]  # (N,)
    source: str  # where they come from, in words


def find_cohort(config: Config) -> Cohort:
    """Deal the images out where the data set is there, else take equal parts.

    Nothing is downloaded or decoded.

    Raises:
        ValueError: the data set is not there and its size is not known, or it is too small.
    """
    if _is_there(config):
        return Cohort(open_data(config).partition.counts, "dealt as in a run")
    if is_expert(config):
        return Cohort(_parts_of_expert(config), "dataset.num_train_images, data not there")
    if config.partition.kind is PartitionKind.file:
        assert config.partition.path is not None  # a rule of `validate`
        return Cohort(load_partition(config.partition.path).counts, config.partition.path)
    number = config.dataset.num_train_images
    if number is None:
        raise ValueError(
            f"dataset.num_train_images=null: the data set {config.dataset.name} is not in "
            f"data_dir={config.data_dir} and its size is not known; set dataset.num_train_images, "
            "or data_dir=<where it is>"
        )
    number -= int(config.callbacks.knn_held_out_fraction * number)
    num_clients = config.clients.num_clients
    check_num_clients(num_clients, number)
    words = f"of dataset.num_train_images={number:,}, data not there"
    num_rich = num_rich_clients(config)
    if num_rich == 0:
        return Cohort(np.diff(equal_offsets(number, num_clients)), f"equal parts {words}")
    held = round(config.heterogeneity.rich_data_fraction * number)
    sides = ((held, num_rich), (number - held, num_clients - num_rich))
    counts = np.concatenate([np.diff(equal_offsets(*side)) for side in sides])
    return Cohort(counts, f"equal parts on each side {words}")


def _parts_of_expert(config: Config) -> npt.NDArray[np.int64]:
    """Return an expert's images, target and auxiliary, by the numbers in the configuration."""
    auxiliary = config.taressfl.auxiliary
    assert auxiliary is not None  # a rule of `validate`
    target, other = config.dataset.num_train_images, auxiliary.num_train_images
    if target is None or other is None:
        raise ValueError(
            "dataset.num_train_images, taressfl.auxiliary.num_train_images: both must be known "
            "where the data are not there; set them, or data_dir=<where they are>"
        )
    parts = [num_target_images(config, target), other]
    return np.array([part for part in parts if part])


def _is_there(config: Config) -> bool:
    """Return whether the data set lies as arrays where a run would look for it."""
    return all(_has_arrays(config, d) for d in data_sets(config).values())


def _has_arrays(config: Config, d: DatasetConfig) -> bool:
    own = d.source == "arrays" and d.path is not None
    folder = Path(d.path or "") if own else Path(config.data_dir) / d.name
    return (folder / "train_labels.npy").is_file()
