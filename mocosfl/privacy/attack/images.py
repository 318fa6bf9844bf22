"""Which images are attacked, and which the attacker knows."""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl.config.attack import AttackConfig
from mocosfl.config.derived import is_expert
from mocosfl.config.identity import moved
from mocosfl.config.schema import Config
from mocosfl.data.cache import Images
from mocosfl.data.federated_data import FederatedData
from mocosfl.data.partition import Partition
from mocosfl.data.sources import load_dataset
from mocosfl.runs.folder import RunFolder
from mocosfl.system.randomness import numpy_generator

log = logging.getLogger(__name__)

_Ints = npt.NDArray[np.int64]
MIN_KNOWN_IMAGES = 2  # one to train the decoder on, one to choose its epoch


class AttackImages(NamedTuple):
    """Training images in their two roles; no image has both.

    Attributes:
        victims: indices in the training images, (V,).
        known: indices in the training images, (K,).
        victim_images: (V, 3, H, H) in [0, 1].
        known_images: (K, 3, H, H) in [0, 1].
        client: whose the victims are; None where they are drawn from all training images.
    """

    victims: _Ints
    known: _Ints
    victim_images: Tensor
    known_images: Tensor
    client: int | None


def choose_images(settings: AttackConfig, config: Config, run: RunFolder | None) -> AttackImages:
    """Draw the victims and the images that the attacker knows.

    Args:
        settings: of the attack.
        config: of the run whose head is attacked.
        run: its folder; None for a checkpoint that lies alone, whose images are dealt anew.

    Raises:
        ValueError: there is no such client, or too few images are known.
        FileNotFoundError: the data set is not there.
    """
    config = moved(config, settings.data_dir)
    images = load_dataset(config.dataset, Path(config.data_dir)).train.images
    held, client = _held(settings, config, run, len(images))
    generator = numpy_generator(settings.seed, "attack victims")
    number = min(settings.attack.num_images, len(held))
    if number < settings.attack.num_images:
        log.info(
            "attack.num_images=%d: client %s holds %d images, all of them are attacked",
            settings.attack.num_images,
            client,
            number,
        )
    victims = np.sort(generator.choice(held, number, replace=False))
    known = _known(settings, np.setdiff1d(np.arange(len(images)), victims), len(images))
    return AttackImages(victims, known, pixels(images, victims), pixels(images, known), client)


def pixels(images: Images, rows: _Ints) -> Tensor:
    """Return images by number, (R, 3, H, W) in [0, 1]."""
    # A copy: torch can't share a memory map opened for reading.
    block = torch.from_numpy(np.array(images[rows]))
    return (block.permute(0, 3, 1, 2).float() / 255).contiguous()


def _held(
    settings: AttackConfig, config: Config, run: RunFolder | None, num_images: int
) -> tuple[_Ints, int | None]:
    """Return the images that victims are drawn from, and whose they are."""
    client = settings.attack.client
    expert = is_expert(config)
    num_clients = 1 if expert else config.clients.num_clients
    if client >= num_clients:
        what = "an expert has one client" if expert else f"the run has {num_clients} clients"
        raise ValueError(
            f"attack.client={client}: {what}, counted from 0; choose one from 0 to "
            f"{num_clients - 1}"
        )
    if num_clients == 1:
        # The only client of an expert numbers the images of two data sets; that of a run holds all.
        return np.arange(num_images), None
    held = _partition(config, run).client(client)
    if held.min() < 0 or held.max() >= num_images:
        raise ValueError(
            f"attack.client={client}: the run's partition names image {held.max()}, and "
            f"{config.dataset.name} has {num_images} training images here; set data_dir to the "
            "data that the run was trained on"
        )
    return held, client


def _partition(config: Config, run: RunFolder | None) -> Partition:
    if run is not None and run.partition.is_file():
        return Partition.load(run.partition)
    log.info("no partition.json beside the checkpoint: its images are dealt as its run dealt them")
    return FederatedData(config).partition


def _known(settings: AttackConfig, others: _Ints, num_images: int) -> _Ints:
    """Draw the known images among those that are no victims."""
    fraction = settings.attack.known_fraction
    number = round(fraction * num_images)
    if number < MIN_KNOWN_IMAGES:
        raise ValueError(
            f"attack.known_fraction={fraction}: knows {number} of {num_images} training images, "
            f"and the attacker needs {MIN_KNOWN_IMAGES}; use at least "
            f"{MIN_KNOWN_IMAGES / num_images:.2g}"
        )
    if number > len(others):
        raise ValueError(
            f"attack.known_fraction={fraction}: knows {number} of {num_images} training images, "
            f"and only {len(others)} are no victims; lower it or attack.num_images"
        )
    generator = numpy_generator(settings.seed, "attack known images")
    return np.sort(generator.choice(others, number, replace=False))
