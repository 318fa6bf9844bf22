"""Seconds for all probes on features that are computed once, against re-running the network.

    python -m benchmarks.probe                   (two cores: about three minutes)

Measured: the forward pass of the frozen network over some images, and all probes on a table of
features of the full size. Scaled: the forward pass, to as many images as each way would run.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.configuration import NUM_CLASSES, build_alone
from benchmarks.contest import synchronise
from benchmarks.results import (
    Spread,
    Table,
    make_parser,
    parse,
    positive,
    publish,
    ratio,
    ratios,
    seconds,
    spread,
)
from mocosfl.config.probe import ProbeConfig
from mocosfl.evaluation.features import extract_features
from mocosfl.evaluation.probe_report import probe_features
from mocosfl.evaluation.probe_run import default_probe_config
from mocosfl.evaluation.probes import LabelledFeatures

NUM_NEIGHBORS = 200  # of the kNN, as published


class Task(NamedTuple):
    """What is probed, and how."""

    train: LabelledFeatures
    test: LabelledFeatures
    config: ProbeConfig


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    parser = make_parser("Seconds for all probes, against re-running the network.", repeats=3)
    add = parser.add_argument
    add("--width", type=positive, default=64, help="of ResNet-18; 64 is full size")
    add("--image-size", type=positive, default=32, help="side, pixels")
    add("--images", type=positive, default=50_000, help="training images of the data set")
    add("--test-images", type=positive, default=10_000)
    add("--measured-images", type=positive, default=2000, help="through the network")
    add("--epochs", type=positive, default=None, help="of a probe; None: conf/linear_probe.yaml's")
    options = parse(parser, arguments)
    torch.set_num_threads(options.threads)
    result = _result(_measure(options), options)
    publish("probe", options, [_table(result, options)], result)


def _measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Return seconds of each piece, one a repeat; the pieces take turns."""
    pieces = _pieces(options)
    pieces["network"]()  # warm-up
    measured: dict[str, list[float]] = {name: [] for name in pieces}
    names = list(pieces)
    for number in range(options.repeats):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            synchronise(options.device)
            start = time.perf_counter()
            pieces[name]()
            synchronise(options.device)
            measured[name].append(time.perf_counter() - start)
    return measured


def _pieces(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    encoder, feature_dim = _encoder(options)
    task = _task(options, feature_dim)
    shape = (options.measured_images, options.image_size, options.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return {
        "network": lambda: extract_features(
            encoder,
            images,
            mean=[0.5] * 3,
            std=[0.25] * 3,
            batch_size=task.config.extract_batch_size,
            device=options.device,
        ),
        "probes": lambda: probe_features(
            task.train,
            task.test,
            task.config,
            num_neighbors=min(NUM_NEIGHBORS, options.images),
            num_classes=NUM_CLASSES,
        ),
    }


def _encoder(options: argparse.Namespace) -> tuple[nn.Module, int]:
    federation = build_alone(width=options.width, image_size=options.image_size)
    encoder = federation.encoder().to(options.device)
    with torch.no_grad():
        picture = torch.zeros(1, 3, options.image_size, options.image_size, device=options.device)
        return encoder, encoder(picture).shape[1]


def _task(options: argparse.Namespace, feature_dim: int) -> Task:
    generator = torch.Generator().manual_seed(0)

    def features(number: int) -> LabelledFeatures:
        values: Tensor = torch.randn(number, feature_dim, generator=generator)
        labels = torch.arange(number) % NUM_CLASSES
        return LabelledFeatures(values.to(options.device), labels.to(options.device))

    return Task(features(options.images), features(options.test_images), _config(options))


def _config(options: argparse.Namespace) -> ProbeConfig:
    config = default_probe_config()
    config.num_epochs = options.epochs or config.num_epochs
    return config


def _result(measured: dict[str, list[float]], options: argparse.Namespace) -> dict[str, Any]:
    """Put both ways together, repeat by repeat."""
    config = _config(options)
    once = options.images + options.test_images
    # Each trained probe runs its own training images through the network in each epoch. The test
    # images are counted once a probe, which favours this way: curves need them in each epoch.
    trained = sum(round(options.images * part) for part in (1.0, *config.label_fractions))
    num_probes = 2 + len(config.label_fractions)
    again = trained * config.num_epochs + options.images + options.test_images * num_probes
    each = [total / options.measured_images for total in measured["network"]]
    heads = measured["probes"]
    ours = [a * once + b for a, b in zip(each, heads, strict=True)]
    rerun = [a * again + b for a, b in zip(each, heads, strict=True)]
    return {
        "seconds": measured,
        "network_images": {"ours": once, "rerun": again},
        "epochs": config.num_epochs,
        "ours_seconds": ours,
        "rerun_seconds": rerun,
        "ours_is_faster": ratios(rerun, ours)._asdict(),
    }


def _table(result: dict[str, Any], options: argparse.Namespace) -> Table:
    measured, images = result["seconds"], result["network_images"]
    each = spread(measured["network"]).median / options.measured_images
    rows = [
        [f"network, {options.measured_images:,} images",
         seconds(spread(measured["network"]).median), "measured"],
        ["all probes on the features", seconds(spread(measured["probes"]).median), "measured"],
        [f"network once: {images['ours']:,} images", seconds(each * images["ours"]), "scaled"],
        [f"network in each epoch: {images['rerun']:,} images", seconds(each * images["rerun"]),
         "scaled"],
        ["**ours**: network once, then all probes",
         seconds(spread(result["ours_seconds"]).median), ""],
        ["re-running the network in each epoch",
         seconds(spread(result["rerun_seconds"]).median), ""],
        ["ours is faster by", ratio(Spread(**result["ours_is_faster"])), ""],
    ]  # fmt: skip
    notes = [
        "Probes are trained on noise of the features' size; their time does not depend on it. "
        f"Re-running counts, for each of {result['epochs']} epochs, the training images of each "
        "trained probe (all, and each fraction of the labels), all images once for kNN, and the "
        "test images once for each probe; the probes themselves take as long as ours.",
    ]
    return Table("Seconds for kNN, linear and semi-supervised probes", ["what", "time", ""], rows,
                 notes)  # fmt: skip


if __name__ == "__main__":
    main()
