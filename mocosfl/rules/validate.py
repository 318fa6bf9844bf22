"""Rules across the fields of the configuration, checked before anything is built or read."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from mocosfl.config.choices import ClientSchedule, Schedule
from mocosfl.config.derived import pool_size
from mocosfl.config.schema import Config
from mocosfl.data.sources import SOURCES
from mocosfl.models.split import BACKBONES
from mocosfl.rules.bounds import MIN_IMAGE_SIZE, not_positive, too_small
from mocosfl.rules.data import (
    augmentation_rules,
    dataset_rules,
    heterogeneity_rules,
    partition_rules,
)
from mocosfl.rules.edge import edge_rules
from mocosfl.rules.machine import accelerator_rules
from mocosfl.rules.method import METHODS, method_rules, round_rules
from mocosfl.rules.network import BOTTLENECK_STRIDES, network_rules, queue_rules
from mocosfl.rules.privacy import taressfl_rules
from mocosfl.rules.processes import process_rules

PRECISIONS = ("fp32", "bf16", "fp64")

# Of torch.compile; both with CUDA graphs are for GPUs.
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")

WANDB_MODES = ("offline", "online")


def validate(config: Config) -> None:
    """Check the whole configuration; no value is changed.

    Raises:
        ValueError: names every broken rule, one a line: key, value, rule, way out.
    """
    problems = list(_missing(config)) or [
        *_ranges(config),
        *augmentation_rules(config),
        *_choices(config),
        *_logger(config),
        *method_rules(config),
        *round_rules(config),
        *taressfl_rules(config),
        *_schedules(config),
        *dataset_rules(config),
        *_clients(config),
        *partition_rules(config),
        *heterogeneity_rules(config),
        *queue_rules(config),
        *network_rules(config),
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
    yield from too_small(at_least)
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
    yield from not_positive(positive)
    if config.trainer.max_steps < 1 and config.trainer.max_steps != -1:
        yield f"trainer.max_steps={config.trainer.max_steps}: must be at least 1, or -1 for all"


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
