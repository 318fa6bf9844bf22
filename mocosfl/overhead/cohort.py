"""How many images each client holds, with the data set at hand or without."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mocosfl.config import Config, KnnImages
from mocosfl.data.datamodule import FederatedData


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
        return Cohort(FederatedData(config).partition.counts, "dealt as in a run")
    number = config.dataset.num_train_images
    if number is None:
        raise ValueError(
            f"dataset.num_train_images=null: the data set {config.dataset.name} is not in "
            f"data_dir={config.data_dir} and its size is not known; set dataset.num_train_images, "
            "or data_dir=<where it is>"
        )
    if config.callbacks.knn_images is KnnImages.held_out:
        number -= int(config.callbacks.knn_held_out_fraction * number)
    num_clients = config.clients.num_clients
    if number < num_clients:
        raise ValueError(
            f"clients.num_clients={num_clients}: more than the {number} training images of "
            f"{config.dataset.name}; use fewer clients"
        )
    counts = np.full(num_clients, number // num_clients)
    counts[: number % num_clients] += 1
    return Cohort(counts, f"equal parts of dataset.num_train_images={number:,}, data not there")


def _is_there(config: Config) -> bool:
    """Return whether the data set lies as arrays where a run would look for it."""
    d = config.dataset
    own = d.source == "arrays" and d.path is not None
    folder = Path(d.path or "") if own else Path(config.data_dir) / d.name
    return (folder / "train_labels.npy").is_file()
