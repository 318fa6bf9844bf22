"""The run that the contestants of a benchmark train: its images and its configuration."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mocosfl.config.hydra_setup import composed
from mocosfl.config.schema import Config
from mocosfl.federation.build import build_federation
from mocosfl.federation.federation import Federation
from mocosfl.rules.machine import check_machine
from mocosfl.rules.validate import validate
from mocosfl.training.cpu_settings import keep_memory

NUM_CLASSES = 10
NEVER = 10**9  # steps, rounds or minutes


class Run(NamedTuple):
    """What a contestant trains."""

    overrides: tuple[str, ...]  # of the composed configuration, as behind `python train.py`
    device: str  # `cpu` or `cuda`


class Shape(NamedTuple):
    """Size of a federation and of its network."""

    num_clients: int  # N
    pool_size: int  # P, at most N
    cut_layer: int
    width: int
    steps_per_block: int  # views are made for so many steps at once, so that blocks cost the same
    client_state: str = "bank"


def compose(overrides: tuple[str, ...]) -> Config:
    """Compose a configuration as `python train.py <overrides>` does."""
    return composed(list(overrides))


def build_alone(*, width: int, image_size: int, cut_layer: int = 1) -> Federation:
    """Build the network of a federation of one client, for what needs no data."""
    names = ["dataset=arrays", "dataset.path=none", f"dataset.num_classes={NUM_CLASSES}"]
    names += [f"dataset.image_size={image_size}", f"backbone.width={width}"]
    names += ["clients.num_clients=1", "clients.participation=1.0"]
    return build_federation(compose((*names, f"split.cut_layer={cut_layer}")))


def open_run(overrides: tuple[str, ...]) -> Config:
    """Compose a run's configuration, check it, and set up this process as `train` does."""
    config = compose(overrides)
    validate(config)
    check_machine(config)
    keep_memory(config)
    torch.set_num_threads(config.trainer.num_threads or torch.get_num_threads())
    return config


def overrides_of(shape: Shape, options: Any, data: list[str]) -> tuple[str, ...]:
    """Return the overrides of a run that measures steps and does nothing else.

    Args:
        shape: of federation and network.
        options: of the command line; `device`, `threads`, `precision` and `set` are read.
        data: overrides that name the images.
    """
    syncs = max(1, 1000 // shape.num_clients)  # a round; the published rule at one image a step
    return (
        *data,
        "run_dir=none",  # Hydra would have to be running to name one; nothing is written there
        "moco=v2",
        "backbone=resnet18",
        f"backbone.width={shape.width}",
        f"split=cut{shape.cut_layer}",
        f"clients.num_clients={shape.num_clients}",
        f"clients.participation={shape.pool_size / shape.num_clients!r}",
        "clients.batch_size=1",
        f"clients.client_state={shape.client_state}",
        f"clients.syncs_per_round={syncs}",
        "clients.num_rounds=1000000",
        f"trainer.precision={options.precision}",
        f"trainer.accelerator={'gpu' if options.device == 'cuda' else 'cpu'}",
        f"trainer.num_threads={options.threads}",
        f"trainer.view_block_images={shape.pool_size * shape.steps_per_block}",
        "trainer.progress_bar=false",
        "logger=csv",
        "callbacks.knn_every_rounds=0",
        "callbacks.pictures=false",
        "callbacks.measure_client_memory=false",
        f"callbacks.checkpoint_every_steps={NEVER}",
        f"callbacks.checkpoint_every_minutes={NEVER}",
        "callbacks.collapse_window_steps=0",  # noise teaches nothing; that is no failure here
        *options.set,
    )


def write_noise(folder: Path, *, num_images: int, image_size: int) -> list[str]:
    """Write images of noise and return the overrides that name them.

    Args:
        folder: to fill, in the layout of `dataset=arrays`.
        num_images: for training; the other part has 10.
        image_size: side, pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for split, number in (("train", num_images), ("test", NUM_CLASSES)):
        shape = (number, image_size, image_size, 3)
        path = folder / f"{split}_images.npy"
        images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        for start in range(0, number, 10_000):  # never all in memory
            block = images[start : start + 10_000]
            block[:] = generator.integers(0, 256, block.shape, np.uint8)
        del images
        np.save(folder / f"{split}_labels.npy", np.arange(number) % NUM_CLASSES)
    return [
        "dataset=arrays",
        f"dataset.path={folder}",
        f"dataset.image_size={image_size}",
        f"dataset.num_classes={NUM_CLASSES}",
    ]


def real_images(data_dir: Path) -> list[str]:
    """Return the overrides that name CIFAR-10 below a data_dir."""
    return ["dataset=cifar10", f"data_dir={data_dir}"]
