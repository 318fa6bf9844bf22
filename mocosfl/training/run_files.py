"""What a run writes into its folder beside its checkpoints: at its start and at its end."""

import json
import logging
import shlex
from pathlib import Path

import torch

from mocosfl.config.derived import is_expert
from mocosfl.config.schema import Config
from mocosfl.data.federated_data import FederatedData
from mocosfl.evaluation.probe_report import table
from mocosfl.evaluation.probe_run import probe_run
from mocosfl.federation.averaging import Spread
from mocosfl.overhead.plan import Plan, plan_json
from mocosfl.overhead.plan_in_words import describe_plan
from mocosfl.overhead.summary import compute_overhead, describe_overhead, overhead_json
from mocosfl.pictures.training_curves import draw_divergence, draw_metrics
from mocosfl.pictures.training_images import draw_partition, draw_view_pairs
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves
from mocosfl.runs.resuming import shown
from mocosfl.system.files import replaced, write_atomically
from mocosfl.tracking.loggers import log_to_wandb
from mocosfl.tracking.wandb_run import overhead_values
from mocosfl.training.collapse import describe_collapses, read_collapses
from mocosfl.training.deployment import Deployment
from mocosfl.training.module import MocoSFL

log = logging.getLogger(__name__)

CURVES = (
    "train/loss",
    "train/contrast_accuracy",
    "train/accuracy",
    "val/knn_top1",
    "train/embedding_std",
)
DIVERGENCE = {name: f"sync/divergence_{name}" for name in Spread._fields}
NUM_VIEWS_SHOWN = 12


def write_start(
    config: Config,
    folder: RunFolder,
    data: FederatedData,
    plan: Plan,
    *,
    with_views: bool = True,
) -> None:
    """Write what is known before the first step.

    Args:
        config: of the run.
        folder: of the run.
        data: of the run.
        plan: of the run.
        with_views: whether the views of this machine's data are those that the run sees.
    """
    folder.save_config(config)
    write_atomically(folder.plan, describe_plan(config, plan) + "\n")
    write_atomically(folder.plan_figures, plan_json(config, plan))
    data.partition.save(folder.partition)
    if not config.callbacks.pictures:
        return
    folder.pictures.mkdir(parents=True, exist_ok=True)
    if not is_expert(config):  # it has no clients to deal images to
        labels, num_classes = data.dataset.train.labels, config.dataset.num_classes
        counts = data.partition.class_counts(labels, num_classes)
        with replaced(folder.partition_picture) as file:
            draw_partition(counts, data.dataset.classes, file)
    if with_views:
        _draw_views(config, folder, data)


def _draw_views(config: Config, folder: RunFolder, data: FederatedData) -> None:
    """Draw the first images that the run will see, and their views."""
    maker = data.view_maker(torch.device("cpu"))
    loader = data.step_loader(maker)
    images, views = [], []
    for step, indices in zip(loader, loader.first_indices(), strict=False):
        images.append(maker.read(indices))
        second = step.view1 if step.view2 is None else step.view2
        views.append(torch.stack([step.view1, second]))
        if sum(map(len, images)) >= NUM_VIEWS_SHOWN:
            break
    view1, view2 = torch.cat(views, 1)[:, :NUM_VIEWS_SHOWN]
    with replaced(folder.views_picture) as file:
        draw_view_pairs(
            torch.cat(images)[:NUM_VIEWS_SHOWN],
            view1,
            view2,
            mean=list(config.dataset.mean),
            std=list(config.dataset.std),
            path=file,
        )


def draw_curves(config: Config, folder: RunFolder) -> None:
    """Draw the curves of a run, where it wants pictures."""
    curves = read_curves(folder.metrics)
    shown = {name: curves[name] for name in CURVES if name in curves}
    if config.callbacks.pictures and shown:
        with replaced(folder.pictures / "curves.png") as file:
            draw_metrics(shown, file)
    apart = {name: curves[column] for name, column in DIVERGENCE.items() if column in curves}
    if config.callbacks.pictures and apart and config.clients.num_clients > 1:
        with replaced(folder.pictures / "divergence.png") as file:
            draw_divergence(apart, file)


def write_end(
    config: Config,
    folder: RunFolder,
    data: FederatedData,
    module: MocoSFL,
    deployment: Deployment,
) -> None:
    """Write what is known after the last step: the overhead and, where asked for, the probes."""
    collapses = read_collapses(folder)
    if collapses:
        log.warning(
            "this run went back from %d collapses (%s). %s",
            len(collapses),
            folder.collapses,
            describe_collapses(config, len(collapses)),
        )
    saving = module.saving
    overhead = compute_overhead(
        config,
        data.partition.counts,
        images_from=folder.partition.name,
        num_steps=module.global_step,
        rounds_by_mode=None if saving is None else saving.num_rounds,
    )
    log.info("the overhead\n%s", describe_overhead(config, overhead))
    write_atomically(folder.overhead, overhead_json(config, overhead))
    log_to_wandb(folder, config, overhead_values(folder))
    deployment.write_records(config, folder, module)
    if config.callbacks.probe_at_end:
        report = probe_run(folder, config)
        log.info("the probes\n%s", table(report))


def write_finish(folder: RunFolder, step: int, *, seconds: float) -> None:
    """Write that all is done; a finished run that is resumed keeps what it took."""
    if not folder.finished.is_file():
        record = {"step": step, "seconds": round(seconds, 3)}
        write_atomically(folder.finished, json.dumps(record) + "\n")


_WIDTH = 12  # of the first column


def closing_words(config: Config, folder: RunFolder, *, has_test_images: bool) -> str:
    """Return what a run says at its end.

    Args:
        config: of the run.
        folder: of the run, with all that it has written.
        has_test_images: whether its encoder can be probed.
    """
    lines = [f"{name:<{_WIDTH}} {text}" for name, text in _places(folder)]
    commands = _next(config, folder, has_test_images)
    return "\n".join([*lines, "next", *(f"  {command}  # {what}" for command, what in commands)])


def _places(folder: RunFolder) -> list[tuple[str, str]]:
    """Return what the folder holds, in a reader's order."""
    best = " (best.ckpt: best by kNN)" if folder.best.is_file() else ""
    files = {"curves": folder.metrics, "overhead": folder.overhead}
    folders = {"pictures": folder.pictures, "probe": folder.probe, "profile": folder.profile}
    return [
        ("folder", f"{shown(folder.path)}/"),
        ("encoder", f"{_below(folder, folder.last)}{best}"),
        *((name, _below(folder, path)) for name, path in files.items() if path.is_file()),
        *((name, f"{_below(folder, path)}/") for name, path in folders.items() if path.is_dir()),
    ]


def _below(folder: RunFolder, path: Path) -> str:
    return str(path.relative_to(folder.path))


def _next(config: Config, folder: RunFolder, has_test_images: bool) -> list[tuple[str, str]]:
    name = shlex.quote(str(shown(folder.path)))
    report = (f"python -m mocosfl.report {name}", "all of it as one page")
    if is_expert(config):
        return [
            (f"python -m mocosfl.attack checkpoint={name}", "how much its head gives away"),
            (
                f"python train.py taressfl=on taressfl.expert={name}",
                "a federation with its head; add the dataset=, split=, backbone= and moco= of here",
            ),
            report,
        ]
    probe = (f"python linear_probe.py checkpoint={name}", "what its features are worth")
    probed = folder.probe.is_dir() or not has_test_images
    return [report] if probed else [probe, report]
