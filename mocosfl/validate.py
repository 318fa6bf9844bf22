"""Rules across the fields of the configuration, checked before anything is built or read."""

import math
import os
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from mocosfl.accelerator import accelerator_rules
from mocosfl.build import (
    batch_sizes,
    build_projector,
    build_split,
    keys_per_row,
    num_rich_clients,
    pool_size,
    queue_shape,
)
from mocosfl.config import (
    MIN_MAP_IMAGES,
    ClientSchedule,
    Config,
    PartitionKind,
    ProbeConfig,
    Schedule,
)
from mocosfl.data.sources import SOURCES
from mocosfl.edge_rules import edge_rules
from mocosfl.method_rules import METHODS, method_rules, round_rules
from mocosfl.models.split import BACKBONES
from mocosfl.models.vgg import STAGE_CONVS
from mocosfl.process_rules import process_rules
from mocosfl.taressfl_rules import taressfl_rules

PRECISIONS = ("fp32", "bf16", "fp64")
# Of torch.compile; both with CUDA graphs are for GPUs.
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
WANDB_MODES = ("offline", "online")
SOURCES_WITH_PATH = ("image_folder", "pictures", "arrays")
SOURCES_WITHOUT_TEST = ("digits", "image_folder", "pictures")
BOTTLENECK_STRIDES = (1, 2, 4)
MIN_IMAGE_SIZE = 8  # pixels


def validate(config: Config) -> None:
    """Check the whole configuration; no value is changed.

    Raises:
        ValueError: names every broken rule, one a line: key, value, rule, way out.
    """
    problems = list(_missing(config)) or [
        *_ranges(config),
        *_augmentation(config),
        *_choices(config),
        *_logger(config),
        *method_rules(config),
        *round_rules(config),
        *taressfl_rules(config),
        *_schedules(config),
        *_dataset(config),
        *_clients(config),
        *_partition(config),
        *_heterogeneity(config),
        *_queue(config),
        *_network(config),
        *process_rules(config),
        *edge_rules(config),
        *_monitors(config),
    ]
    if problems:
        raise ValueError("\n".join(problems))


def _missing(config: Config) -> Iterator[str]:
    """Yield a line for each value that has no default and was not given."""
    values = OmegaConf.to_container(OmegaConf.structured(config), resolve=False)
    assert isinstance(values, dict)
    for key in _missing_keys(values, ""):
        yield f"{key}=???: has no default; set it, as in {key}=<value>"


def _missing_keys(values: dict[Any, Any], prefix: str) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _missing_keys(value, f"{prefix}{name}.")
        elif value == "???":
            yield f"{prefix}{name}"


def _ranges(config: Config) -> Iterator[str]:
    """Yield a line for each number outside its bounds."""
    c, o, m = config.clients, config.optimizer, config.moco
    at_least = [
        ("seed", config.seed, 0),
        ("dataset.image_size", config.dataset.image_size, MIN_IMAGE_SIZE),
        ("dataset.num_classes", config.dataset.num_classes, 1),
        ("clients.num_clients", c.num_clients, 1),
        ("clients.batch_size", c.batch_size, 1),
        ("clients.syncs_per_round", c.syncs_per_round, 1),
        ("clients.num_rounds", c.num_rounds, 1),
        ("moco.queue_length", m.queue_length, 1),
        ("moco.projector_dim", m.projector_dim, 1),
        ("optimizer.server_lr", o.server_lr, 0),
        ("optimizer.client_lr", o.client_lr, 0),
        ("optimizer.weight_decay", o.weight_decay, 0),
        ("optimizer.step_decay_server", o.step_decay_server, 0),
        ("optimizer.step_decay_client", o.step_decay_client, 0),
        ("trainer.log_every_steps", config.trainer.log_every_steps, 1),
        ("trainer.overfit_steps", config.trainer.overfit_steps, 0),
        ("trainer.view_block_images", config.trainer.view_block_images, 1),
        ("partition.classes_per_client", config.partition.classes_per_client, 1),
        ("partition.min_images", config.partition.min_images, 1),
        ("method.local_epochs", config.method.local_epochs, 1),
        ("saving.warmup_rounds", config.saving.warmup_rounds, 0),
        ("saving.loss_threshold", config.saving.loss_threshold, 0),
        ("heterogeneity.rich_batch_factor", config.heterogeneity.rich_batch_factor, 1),
        ("dataset.num_workers", config.dataset.num_workers, 1),
        ("callbacks.checkpoint_every_steps", config.callbacks.checkpoint_every_steps, 1),
        ("callbacks.knn_every_rounds", config.callbacks.knn_every_rounds, 0),
        ("callbacks.knn_num_images", config.callbacks.knn_num_images, 1),
        ("callbacks.knn_num_neighbors", config.callbacks.knn_num_neighbors, 1),
        ("callbacks.collapse_window_steps", config.callbacks.collapse_window_steps, 0),
        ("callbacks.collapse_loss_margin", config.callbacks.collapse_loss_margin, 0),
        ("callbacks.collapse_min_std", config.callbacks.collapse_min_std, 0),
    ]
    if m.projector_hidden is not None:
        at_least.append(("moco.projector_hidden", m.projector_hidden, 1))
    if config.trainer.num_threads is not None:
        at_least.append(("trainer.num_threads", config.trainer.num_threads, 1))
    yield from _too_small(at_least)
    fractions = [
        ("moco.momentum", m.momentum),
        ("optimizer.momentum", o.momentum),
        ("callbacks.knn_held_out_fraction", config.callbacks.knn_held_out_fraction),
    ]
    for key, value in fractions:
        if not 0 <= value <= 1:
            yield f"{key}={value}: must be from 0 to 1"
    positive = [
        ("moco.temperature", m.temperature),
        ("partition.alpha", config.partition.alpha),
        ("callbacks.knn_temperature", config.callbacks.knn_temperature),
        ("callbacks.checkpoint_every_minutes", config.callbacks.checkpoint_every_minutes),
    ]
    yield from _not_positive(positive)
    if config.trainer.max_steps < 1 and config.trainer.max_steps != -1:
        yield f"trainer.max_steps={config.trainer.max_steps}: must be at least 1, or -1 for all"


def _too_small(values: Iterable[tuple[str, float, float]]) -> Iterator[str]:
    """Yield a line for each (key, value, bound) below its bound."""
    for key, value, bound in values:
        if not value >= bound:  # so that NaN fails too
            yield f"{key}={value}: must be at least {bound}"


def _not_positive(values: Iterable[tuple[str, float]]) -> Iterator[str]:
    """Yield a line for each (key, value) that is not above 0."""
    for key, value in values:
        if not value > 0:
            yield f"{key}={value}: must be above 0"


def _augmentation(config: Config) -> Iterator[str]:
    """Yield a line for each distribution of the views that cannot be drawn from."""
    a, group = config.moco.augmentation, "moco.augmentation"
    for name in ("jitter", "grey", "blur", "flip"):
        probability = getattr(a, f"{name}_probability")
        if not 0 <= probability <= 1:
            yield f"{group}.{name}_probability={probability}: must be from 0 to 1"
    for name in ("brightness", "contrast", "saturation"):
        strength = getattr(a, name)
        if not strength >= 0:
            yield f"{group}.{name}={strength}: must be at least 0"
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


def _choices(config: Config) -> Iterator[str]:
    """Yield a line for each name that is not known, or not built yet."""
    choices = [
        ("dataset.source", config.dataset.source, SOURCES),
        ("backbone.name", config.backbone.name, BACKBONES),
        ("trainer.precision", config.trainer.precision, PRECISIONS),
        ("trainer.compile_mode", config.trainer.compile_mode, COMPILE_MODES),
        ("logger.wandb_mode", config.logger.wandb_mode, WANDB_MODES),
        ("method.name", config.method.name, tuple(METHODS)),
        ("split.bottleneck_stride", config.split.bottleneck_stride, BOTTLENECK_STRIDES),
    ]
    for key, value, known in choices:
        if value not in known:
            yield f"{key}={value}: unknown; choose one of {', '.join(map(str, known))}"
    yield from accelerator_rules(config.trainer.accelerator, "trainer.accelerator")
    compiler = os.environ.get("CXX", "g++")
    if config.trainer.compile and shutil.which(compiler) is None:
        yield (
            f"trainer.compile=true: torch.compile needs a C++ compiler, and {compiler} is not on "
            "the PATH; install one (or name it in the environment variable CXX), or use "
            "trainer.compile=false"
        )
    aligned = {"mocosfl": False, "monacosfl": True}.get(config.method.name)
    if aligned is not None and config.method.align_momentum is not aligned:
        yield (
            f"method.name={config.method.name}, method.align_momentum="
            f"{config.method.align_momentum}: mocosfl leaves the momentum heads alone, monacosfl "
            "aligns them; choose method=mocosfl or method=monacosfl"
        )


def _logger(config: Config) -> Iterator[str]:
    """Yield a line if W&B is to show what nobody writes down."""
    if config.logger.wandb and not config.logger.csv:
        yield (
            "logger.csv=false, logger.wandb=true: the summary of W&B and the definitions of its "
            "curves are made from metrics.csv; set logger.csv=true"
        )


def _dataset(config: Config) -> Iterator[str]:
    """Yield a line for each setting that does not fit the images' source."""
    d = config.dataset
    for key, values in (("mean", d.mean), ("std", d.std)):
        if len(values) != 3:
            yield f"dataset.{key}={list(values)}: needs three values, one a channel"
    if min(d.std, default=1) <= 0:
        yield f"dataset.std={list(d.std)}: must be above 0"
    known = d.source in SOURCES
    if known and d.path is not None and d.source not in SOURCES_WITH_PATH:
        yield f"dataset.path={d.path}: dataset.source={d.source} does not read it; leave it null"
    if not d.path and d.source in SOURCES_WITH_PATH:
        yield (
            f"dataset.path={d.path or 'null'}: dataset.source={d.source} reads the folder it "
            "names; set dataset.path=<folder>"
        )
    if not 0 <= d.test_fraction < 1:
        yield f"dataset.test_fraction={d.test_fraction}: must be from 0 to below 1"
    elif known and d.test_fraction > 0 and d.source not in SOURCES_WITHOUT_TEST:
        yield (
            f"dataset.test_fraction={d.test_fraction}: dataset.source={d.source} brings its own "
            "test images; set it to 0"
        )


def _schedules(config: Config) -> Iterator[str]:
    """Yield a line if the published client schedule is asked for beside another course."""
    o = config.optimizer
    if o.client_schedule is ClientSchedule.published and o.schedule is not Schedule.cosine:
        yield (
            f"optimizer.client_schedule=published: is a cosine, and optimizer.schedule="
            f"{o.schedule.name}; set optimizer.schedule=cosine or optimizer.client_schedule=rounds"
        )


def _clients(config: Config) -> Iterator[str]:
    """Yield a line for each impossible federation."""
    c = config.clients
    if not 0 < c.participation <= 1:
        yield f"clients.participation={c.participation}: must be above 0 and at most 1"
    elif pool_size(config) < 1 <= c.num_clients:
        yield (
            f"clients.participation={c.participation}: leaves an empty pool of {c.num_clients} "
            f"clients; use at least {1 / c.num_clients:.3g}"
        )


def _partition(config: Config) -> Iterator[str]:
    """Yield a line for each setting that does not fit the way the images are dealt."""
    p = config.partition
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


def _heterogeneity(config: Config) -> Iterator[str]:
    """Yield a line for each impossible division into rich and poor clients."""
    h, num_clients = config.heterogeneity, config.clients.num_clients
    if not 0 < h.rich_data_fraction < 1:
        yield (
            f"heterogeneity.rich_data_fraction={h.rich_data_fraction}: must be above 0 and below 1"
        )
    if not 0 <= h.rich_fraction < 1:
        yield (
            f"heterogeneity.rich_fraction={h.rich_fraction}: must be from 0 to below 1; 0 makes "
            "all clients alike"
        )
    elif h.rich_fraction > 0 and num_clients >= 1:
        num_rich = num_rich_clients(config)
        if not 0 < num_rich < num_clients:
            side = "poor" if num_rich else "rich"
            yield (
                f"heterogeneity.rich_fraction={h.rich_fraction}: leaves no {side} client among "
                f"{num_clients}; change it, or use heterogeneity=none"
            )


def _queue(config: Config) -> Iterator[str]:
    """Yield a line if a step's keys do not fit into the queue."""
    moco, clients = config.moco, config.clients
    known = 0 < clients.participation <= 1 and 0 <= config.heterogeneity.rich_fraction < 1
    if config.method.supervised or clients.num_clients < 1 or not known:
        return  # no queue; or reported among the ranges
    largest = np.sort(batch_sizes(config))[::-1] * keys_per_row(config)
    per_client = int(largest[0])
    if moco.feature_sharing:
        keys = int(largest[: pool_size(config)].sum())  # of the pool with the largest batches
        if keys > moco.queue_length:
            yield (
                f"moco.queue_length={moco.queue_length}: shorter than the {keys} keys of one step; "
                f"use at least {keys}, or fewer or smaller clients"
            )
        return
    private = queue_shape(config)[1]
    if per_client > private:
        yield (
            f"moco.queue_length={moco.queue_length}: leaves {private} keys to each of "
            f"{clients.num_clients} private queues, a client brings {per_client} a step; "
            f"use at least {per_client * clients.num_clients}, or moco.feature_sharing=true"
        )


def _network(config: Config) -> Iterator[str]:
    """Yield a line if the network cannot be built as asked."""
    split = config.split
    if not split.client_residual and config.backbone.name in STAGE_CONVS:
        yield "split.client_residual=false: a VGG has no residual connections; set it to true"
    if split.bottleneck_channels is not None and split.bottleneck_channels < 1:
        yield f"split.bottleneck_channels={split.bottleneck_channels}: at least 1, or null"
        return
    if split.bottleneck_channels is None and split.bottleneck_stride != 1:
        yield (
            f"split.bottleneck_stride={split.bottleneck_stride}: there is no bottleneck; set "
            "split.bottleneck_channels too, or leave the stride at 1"
        )
    if split.bottleneck_kernel < 1 or split.bottleneck_kernel % 2 == 0:
        yield f"split.bottleneck_kernel={split.bottleneck_kernel}: must be odd and at least 1"
        return
    if split.bottleneck_stride not in BOTTLENECK_STRIDES:
        return  # reported among the choices
    if config.moco.projector_batch_norm and config.moco.projector_hidden is None:
        yield (
            "moco.projector_batch_norm=true: a linear projector (moco.projector_hidden=null) has "
            "no hidden layer to normalise; set it to false"
        )
    hidden = config.moco.projector_hidden
    if config.dataset.image_size < MIN_IMAGE_SIZE or config.moco.projector_dim < 1:
        return  # reported among the ranges, and cannot be built
    if hidden is not None and hidden < 1:
        return
    try:
        # On the meta device shapes are computed and nothing is allocated.
        with torch.device("meta"):
            build_projector(config, build_split(config))
    except ValueError as error:
        if not str(error).startswith("backbone.name"):  # reported among the choices
            yield str(error)


def _monitors(config: Config) -> Iterator[str]:
    """Yield a line for each monitor that cannot work."""
    c = config.callbacks
    if c.knn_every_rounds and c.knn_num_images <= c.knn_num_neighbors:
        yield (
            f"callbacks.knn_num_neighbors={c.knn_num_neighbors}: must be below "
            f"callbacks.knn_num_images={c.knn_num_images}"
        )
    if c.knn_images.name == "held_out" and not 0 < c.knn_held_out_fraction < 1:
        yield (
            f"callbacks.knn_held_out_fraction={c.knn_held_out_fraction}: must be above 0 and "
            "below 1 with callbacks.knn_images=held_out"
        )


def validate_probe(config: ProbeConfig) -> None:
    """Check the configuration of the probes; no value is changed.

    Raises:
        ValueError: names every broken rule, one a line.
    """
    problems = list(_probe(config))
    if problems:
        raise ValueError("\n".join(problems))


def _probe(config: ProbeConfig) -> Iterator[str]:
    """Yield a line for each broken rule of the probes."""
    at_least = [
        ("seed", config.seed, 0),
        ("num_epochs", config.num_epochs, 1),
        ("batch_size", config.batch_size, 2),
        ("hidden_dim", config.hidden_dim, 1),
        ("extract_batch_size", config.extract_batch_size, 1),
    ]
    if config.knn_num_neighbors is not None:
        at_least.append(("knn_num_neighbors", config.knn_num_neighbors, 1))
    yield from _too_small(at_least)
    yield from _not_positive(
        [
            ("learning_rate", config.learning_rate),
            ("knn_temperature", config.knn_temperature),
        ]
    )
    if config.embedding_map_images != 0 and config.embedding_map_images < MIN_MAP_IMAGES:
        yield (
            f"embedding_map_images={config.embedding_map_images}: must be 0 (no map) or at least "
            f"{MIN_MAP_IMAGES}"
        )
    for fraction in config.label_fractions:
        if not 0 < fraction <= 1:
            yield f"label_fractions={list(config.label_fractions)}: each above 0 and at most 1"
    yield from accelerator_rules(config.accelerator)
    if config.run is not None and config.checkpoint != "none":
        yield f"run={config.run}: is only read with checkpoint=none; leave it out"
