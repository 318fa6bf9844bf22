"""A saved partition given back (`partition=file`): another run's clients hold the same images."""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mocosfl.config.choices import PARTITION_FILE
from mocosfl.data.partition import Partition

logger = logging.getLogger(__name__)


def read_partition(
    path: str, *, num_clients: int, training: npt.NDArray[np.int64], num_images: int
) -> Partition:
    """Read a partition and check that it fits this run. It need not use every image.

    Args:
        path: `partition.path`, a partition's file or a run folder that holds one.
        num_clients: N of this run.
        training: indices of the images that may train, in ascending order.
        num_images: images in the data set; those that are not in `training` are held out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no partition, or not one of this run's clients and images.
    """
    partition = load_partition(path)
    if partition.num_clients != num_clients:
        raise ValueError(
            f"partition.path={path}: deals to {partition.num_clients} clients, and "
            f"clients.num_clients={num_clients}; set clients.num_clients={partition.num_clients}, "
            "or name another partition"
        )
    least, most = int(partition.order.min()), int(partition.order.max())
    if least < 0 or most >= num_images:
        outside = least if least < 0 else most
        raise ValueError(
            f"partition.path={path}: deals image {outside}, and the data set has images 0 to "
            f"{num_images - 1}; choose the data set that the partition was made for"
        )
    held_out = np.setdiff1d(partition.order, training)
    if len(held_out):
        raise ValueError(
            f"partition.path={path}: deals image {held_out[0]}, which is held out for the kNN "
            f"monitor ({len(held_out)} such images); use callbacks.knn_held_out_fraction=0, or "
            "the seed and the fraction of the run that made the partition"
        )
    unused = len(training) - len(partition.order)
    if unused:
        logger.info("%s leaves %d of the training images to no client", path, unused)
    return partition


def load_partition(path: str) -> Partition:
    """Read a partition's file, or that of a run folder; errors as in `read_partition`."""
    file = Path(path).expanduser()
    if file.is_dir():
        file /= PARTITION_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"partition.path={path}: no such file; name the {PARTITION_FILE} of a run, or its "
            "folder"
        )
    try:
        return Partition.load(file)
    except ValueError as error:
        raise ValueError(
            f"partition.path={path}: no partition ({error.__cause__}); name the {PARTITION_FILE} "
            "that a run wrote, or its folder"
        ) from error
