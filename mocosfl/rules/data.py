"""Rules for the images: their source, how they are dealt, and their views."""

import math
from collections.abc import Iterator
from pathlib import Path

from mocosfl.config.choices import PartitionKind
from mocosfl.config.derived import data_sets
from mocosfl.config.schema import Config, DatasetConfig
from mocosfl.rules.problems import not_below_1, not_from_0_to_1, too_small

MIN_IMAGE_SIZE = 8  # pixels

SOURCES_WITH_PATH = ("image_folder", "pictures", "arrays")
SOURCES_WITHOUT_TEST = ("digits", "image_folder", "pictures")


def augmentation_rules(config: Config) -> Iterator[str]:
    """Yield a line for each distribution of the views that cannot be drawn from."""
    a, group = config.moco.augmentation, "moco.augmentation"
    chances = [f"{name}_probability" for name in ("jitter", "grey", "blur", "flip")]
    yield from not_from_0_to_1([(f"{group}.{name}", getattr(a, name)) for name in chances])
    strengths = ("brightness", "contrast", "saturation")
    yield from too_small([(f"{group}.{name}", getattr(a, name), 0) for name in strengths])
    if not 0 <= a.hue <= 0.5:
        yield f"{group}.hue={a.hue}: must be from 0 to 0.5, half a turn"
    ranges = [
        ("crop_scale", a.crop_scale_min, a.crop_scale_max, 1),
        ("crop_ratio", a.crop_ratio_min, a.crop_ratio_max, math.inf),
        ("blur_sigma", a.blur_sigma_min, a.blur_sigma_max, math.inf),
    ]
    for name, low, high, bound in ranges:
        if not 0 < low <= high <= bound:
            yield (
                f"{group}.{name}_min={low}, {group}.{name}_max={high}: must be 0 < min <= max"
                + ("" if bound == math.inf else f" <= {bound}")
            )


def dataset_rules(config: Config) -> Iterator[str]:
    """Yield a line for each setting of a data set that does not fit the images' source."""
    for group, settings in data_sets(config).items():
        yield from _one_dataset(group, settings)


def _one_dataset(group: str, d: DatasetConfig) -> Iterator[str]:
    yield from too_small(
        [
            (f"{group}.image_size", d.image_size, MIN_IMAGE_SIZE),
            (f"{group}.num_classes", d.num_classes, 1),
            (f"{group}.num_workers", d.num_workers, 1),
        ]
    )
    if d.name in ("", ".", "..") or Path(d.name).name != d.name:
        yield f"{group}.name={d.name}: names a folder below data_dir; give one plain name"
    for key, values in (("mean", d.mean), ("std", d.std)):
        if len(values) != 3:
            yield f"{group}.{key}={list(values)}: needs three values, one a channel"
    if min(d.std, default=1) <= 0:
        yield f"{group}.std={list(d.std)}: must be above 0"
    if d.path is not None and d.source not in SOURCES_WITH_PATH:
        yield f"{group}.path={d.path}: {group}.source={d.source} does not read it; leave it null"
    if not d.path and d.source in SOURCES_WITH_PATH:
        yield (
            f"{group}.path={d.path or 'null'}: {group}.source={d.source} reads the folder it "
            f"names; set {group}.path=<folder>"
        )
    yield from not_below_1([(f"{group}.test_fraction", d.test_fraction)])
    if 0 < d.test_fraction < 1 and d.source not in SOURCES_WITHOUT_TEST:
        yield (
            f"{group}.test_fraction={d.test_fraction}: {group}.source={d.source} brings its own "
            "test images; set it to 0"
        )


def partition_rules(config: Config) -> Iterator[str]:
    """Yield a line for each setting that does not fit the way the images are dealt."""
    p = config.partition
    yield from too_small(
        [
            ("partition.classes_per_client", p.classes_per_client, 1),
            ("partition.min_images", p.min_images, 1),
        ]
    )
    if not 0 < p.alpha < math.inf:
        yield f"partition.alpha={p.alpha}: must be above 0 and finite"
    if p.kind is PartitionKind.shards and p.classes_per_client > config.dataset.num_classes:
        yield (
            f"partition.classes_per_client={p.classes_per_client}: the data set has "
            f"dataset.num_classes={config.dataset.num_classes}; use at most that many"
        )
    if p.kind is PartitionKind.file and p.path is None:
        yield (
            "partition.path=null: partition.kind=file reads it; name a partition.json, or the "
            "folder of a run that has one"
        )
    if p.kind is not PartitionKind.file and p.path is not None:
        yield (
            f"partition.path={p.path}: partition.kind={p.kind.name} does not read it; use "
            "partition=file, or leave it null"
        )
