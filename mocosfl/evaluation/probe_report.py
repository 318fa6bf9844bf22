"""All probes of one encoder, and what is written about them."""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mocosfl.config.identity import moved
from mocosfl.config.probe import ProbeConfig
from mocosfl.data.cache import ImageArrays, ImageDataset
from mocosfl.data.sources import load_dataset
from mocosfl.evaluation.embedding_map import EmbeddingMap, map_features, write_map
from mocosfl.evaluation.features import extract_features
from mocosfl.evaluation.knn import knn_top1
from mocosfl.evaluation.probeable import check_probeable
from mocosfl.evaluation.probes import (
    LabelledFeatures,
    ProbeResult,
    ProbeSettings,
    linear_probe,
    semi_supervised,
)
from mocosfl.pictures.probes import draw_per_class
from mocosfl.runs.checkpoint import Encoder, fingerprint
from mocosfl.runs.evaluation_folders import ProbeFolder
from mocosfl.system.device import chosen_device
from mocosfl.system.files import replaced, write_atomically
from mocosfl.tracking.metrics_log import MetricsLog

log = logging.getLogger(__name__)

# The published recipe of the semi-supervised heads.
DECAY_FRACTIONS, DECAY_FACTOR = (0.6, 0.8), 0.1

# What shapes the figures beside k, and goes into results.json with them.
SETTINGS = (
    "knn_temperature", "num_epochs", "batch_size", "learning_rate", "hidden_dim",
    "label_fractions", "seed",
)  # fmt: skip


class ProbeReport(NamedTuple):
    """What the probes found; accuracies on the test images, fractions."""

    knn_top1: float
    probes: list[ProbeResult]
    feature_seconds: float
    probe_seconds: float
    fingerprint: str  # SHA-256 of the encoder's weights, the same before and after
    embedding_map: EmbeddingMap | None  # None: not asked for, or too few test images
    map_seconds: float
    settings: dict[str, Any]  # of the probes, by their keys


def probe_encoder(encoder: Encoder, dataset: ImageDataset, config: ProbeConfig) -> ProbeReport:
    """Run the frozen encoder once over all images and train every probe on the features.

    Args:
        encoder: what to evaluate.
        dataset: that it was trained on.
        config: of the probes.

    Raises:
        ValueError: no test images, or more neighbours than training images.
    """
    neighbors = config.knn_num_neighbors
    if neighbors is None:  # as many as the encoder's own run asks
        neighbors = encoder.config.callbacks.knn_num_neighbors
    check_probeable(encoder.config.dataset.name, dataset, neighbors, "knn_num_neighbors")
    assert dataset.test is not None
    before, start = fingerprint(encoder.network), time.monotonic()
    train = _features(encoder, dataset.train, config)
    test = _features(encoder, dataset.test, config)
    feature_seconds, start = time.monotonic() - start, time.monotonic()
    num_classes = encoder.config.dataset.num_classes
    knn, probes = probe_features(
        train, test, config, num_neighbors=neighbors, num_classes=num_classes
    )
    after = fingerprint(encoder.network)
    if after != before:
        raise AssertionError("the frozen encoder changed while it was probed")
    probe_seconds, start = time.monotonic() - start, time.monotonic()
    found = map_features(test, num_images=config.embedding_map_images, seed=config.seed)
    map_seconds = time.monotonic() - start
    return ProbeReport(
        knn,
        probes,
        feature_seconds,
        probe_seconds,
        after,
        found,
        map_seconds,
        {
            "knn_num_neighbors": neighbors,
            **{key: _plain(getattr(config, key)) for key in SETTINGS},
        },
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def probe_features(
    train: LabelledFeatures,
    test: LabelledFeatures,
    config: ProbeConfig,
    *,
    num_neighbors: int,
    num_classes: int,
) -> tuple[float, list[ProbeResult]]:
    """Run every probe on features.

    Args:
        train: of all training images.
        test: on the same device.
        config: of the probes.
        num_neighbors: k of kNN, at most the training images; config's may be null.
        num_classes: of the data set.

    Returns:
        The kNN top-1, a fraction, and what each trained probe found: the linear one, then one a
        label fraction.
    """
    knn = knn_top1(
        test.features,
        test.labels,
        train.features,
        train.labels,
        num_neighbors=num_neighbors,
        temperature=config.knn_temperature,
        num_classes=num_classes,
    )
    settings = ProbeSettings(
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        hidden_features=config.hidden_dim,
        decay_fractions=DECAY_FRACTIONS,
        decay_factor=DECAY_FACTOR,
    )
    shared: dict[str, Any] = {"num_classes": num_classes, "settings": settings, "seed": config.seed}
    jobs: list[Callable[[], ProbeResult]] = [partial(linear_probe, train, test, **shared)]
    for fraction in config.label_fractions:
        jobs.append(partial(semi_supervised, train, test, label_fraction=fraction, **shared))
    return knn, _side_by_side(jobs)


def _side_by_side(jobs: list[Callable[[], ProbeResult]]) -> list[ProbeResult]:
    """Train the probes at once, each on one core: their steps are too small to be shared."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(
            max_workers=min(len(jobs), os.cpu_count() or 1),
            initializer=torch.set_num_threads,
            initargs=(1,),
        ) as threads:
            return list(threads.map(lambda job: job(), jobs))
    finally:
        torch.set_num_threads(num_threads)


def dataset_of(encoder: Encoder, data_dir: str | None) -> ImageDataset:
    """Load the data set that an encoder was trained on; `data_dir` None: where it was then."""
    config = moved(encoder.config, data_dir)
    return load_dataset(config.dataset, Path(config.data_dir))


def _features(encoder: Encoder, arrays: ImageArrays, config: ProbeConfig) -> LabelledFeatures:
    device = chosen_device(config.accelerator)
    features = extract_features(
        encoder.network.to(device),
        arrays.images,
        mean=list(encoder.config.dataset.mean),
        std=list(encoder.config.dataset.std),
        batch_size=config.extract_batch_size,
        device=device,
    )
    return LabelledFeatures(features, torch.as_tensor(arrays.labels))


def table(report: ProbeReport) -> str:
    """Return the accuracies as text, in percent."""
    lines = [f"{'probe':<22} {'final':>8} {'best':>8}  at epoch"]
    lines.append(f"{'kNN':<22} {100 * report.knn_top1:>7.2f}%")
    for probe in report.probes:
        top1s = f"{100 * probe.final_top1:>7.2f}% {100 * probe.best_top1:>7.2f}%"
        lines.append(f"{probe.name.recorded:<22} {top1s}  {probe.best_epoch}")
    lines.append("(top-1 on the test images; `best` is chosen by the same test images)")
    return "\n".join(lines)


def write_probes(
    encoder: Encoder, report: ProbeReport, classes: tuple[str, ...], folder: Path
) -> None:
    """Write `results.json`, `metrics.csv` (a curve a probe), the pictures and the map's table."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "encoder": encoder.source,
        "encoder_step": encoder.step,
        "encoder_sha256": report.fingerprint,
        "dataset": encoder.config.dataset.name,
        "settings": report.settings,
        "knn_top1": report.knn_top1,
        "probes": {
            probe.name.recorded: {
                "final_top1": probe.final_top1,
                "best_top1": probe.best_top1,
                "best_epoch": probe.best_epoch,
                "per_class": {
                    name: None if math.isnan(top1) else top1  # no test image of that class
                    for name, top1 in zip(classes, probe.per_class.tolist(), strict=True)
                },
            }
            for probe in report.probes
        },
        "feature_seconds": report.feature_seconds,
        "probe_seconds": report.probe_seconds,
        "map_seconds": report.map_seconds,
    }
    files = ProbeFolder(folder)
    write_atomically(files.results, json.dumps(values, indent=2) + "\n")
    curves = MetricsLog(files.metrics)
    curves.continue_from(0)
    for epoch in range(max(len(probe.curve) for probe in report.probes)):
        row = {p.name.logged: p.curve[epoch] for p in report.probes if epoch < len(p.curve)}
        curves.log_metrics(row, step=epoch)
    per_class = {probe.name.recorded: probe.per_class for probe in report.probes}
    with replaced(files.per_class) as picture:
        draw_per_class(per_class, classes, picture)
    write_map(report.embedding_map, classes, folder)


def accuracies_by_name(report: ProbeReport) -> dict[str, float]:
    """Return the accuracies by logged name, fractions."""
    values = {"probe/knn_top1": report.knn_top1}
    for probe in report.probes:
        values[f"{probe.name.logged}_final"] = probe.final_top1
        values[f"{probe.name.logged}_best"] = probe.best_top1
    return values
