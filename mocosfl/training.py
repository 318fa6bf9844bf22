"""A run from its configuration to its last checkpoint."""

import json
import logging
import shutil
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch

from mocosfl import pictures
from mocosfl.alarm import Collapsed
from mocosfl.averaging import Spread
from mocosfl.build import build_module
from mocosfl.checkpoint import check_same_run
from mocosfl.collapse import describe_collapses, go_back, read_collapses
from mocosfl.config import Config
from mocosfl.data.datamodule import FederatedData
from mocosfl.data.expert_data import open_data
from mocosfl.data.partition import Partition
from mocosfl.ddp import OwnProcesses, free_port
from mocosfl.evaluation.report import table
from mocosfl.evaluation.run_probes import probe_run
from mocosfl.further_rank import further_ranks
from mocosfl.loggers import log_to_wandb, open_loggers
from mocosfl.memory_check import check_memory
from mocosfl.metrics_log import read_curves
from mocosfl.module import MocoSFL
from mocosfl.overhead.summary import compute_overhead, describe_overhead, to_json
from mocosfl.plan import Plan, describe, make_plan, megabytes
from mocosfl.ranks import ALONE, Ranks
from mocosfl.run_folder import (
    FREE_ON_RESUME,
    RunFolder,
    changed_keys,
    copy_keys,
    write_atomically,
)
from mocosfl.starting_point import load_expert, start_from_expert
from mocosfl.trainer import cpu_settings, is_expert, make_trainer
from mocosfl.validate import validate
from mocosfl.wandb_run import overhead_values

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


def train(config: Config, folder: RunFolder, *, resume: bool) -> MocoSFL:
    """Train a federation, or go on with one.

    Args:
        config: of the run; checked here.
        folder: where the run writes.
        resume: go on from the folder's last checkpoint.

    Returns:
        The trained module; of several processes the first one's, with its own clients' heads.

    Raises:
        ValueError, FileNotFoundError: the configuration or the data are wrong; the message says
            what to do.
        TrainingStopped: the loss is not finite, or the run collapsed.
        WorkerFailed: a further process (trainer.devices) has failed.
    """
    validate(config)
    with cpu_settings(config), folder.locked():
        return _train_through_collapses(config, folder, resume=resume)


def train_unless_finished(config: Config, folder: RunFolder) -> MocoSFL | None:
    """Do what a run's folder calls for: start the run, go on with it, or leave it alone.

    Decided under the folder's lock, so that of several processes one alone trains.

    Args:
        config: of the run; checked here. Equal to the one that the folder's run began with, but
            for `FREE_KEYS`: a sweep's folders are named after their configuration.
        folder: where the run writes.

    Returns:
        The trained module; None where the run had finished before.

    Raises:
        FolderBusy: another process is running there.
        ValueError, FileNotFoundError, TrainingStopped: as `train`.
    """
    validate(config)
    with cpu_settings(config), folder.locked():
        if folder.finished.is_file():
            return None
        # A kill before config.yaml was complete leaves none: it is renamed into place.
        return _train_through_collapses(config, folder, resume=folder.config.is_file())


def _train_through_collapses(config: Config, folder: RunFolder, *, resume: bool) -> MocoSFL:
    """Train; after a collapse go back to the last good checkpoint, as often as is allowed."""
    while True:
        try:
            return _train(config, folder, resume=resume)
        except Collapsed as collapse:
            if not go_back(config, folder, collapse.step):
                raise
            resume = True


def _train(config: Config, folder: RunFolder, *, resume: bool) -> MocoSFL:
    start = time.monotonic()
    if not resume:
        _check_fresh(folder)
    checkpoint = _checkpoint(folder, config) if resume else None
    own_partition = folder.partition if checkpoint is not None else None
    data = open_data(config, partition_file=own_partition)
    expert = load_expert(config) if checkpoint is None else None  # it is in the checkpoint
    plan = make_plan(config, data.partition.counts)
    _check_max_steps(config, plan)
    _check_probe(config, data)
    _check_disk(config, folder, plan)
    check_memory(config, plan)
    _check_edge(config)
    log.info("the plan\n%s", describe(config, plan))
    if checkpoint is None:
        write_start(config, folder, data, plan)
    else:
        _check_partition(folder, data)
        _note_free_keys(config, folder)
    folder.failed.unlink(missing_ok=True)  # of an earlier try; nothing has refused this one
    processes = _processes(config)
    module = build_module(
        config,
        plan.steps_per_round,
        counts=data.partition.counts,
        smashed_folder=folder.smashed,
        num_collapses=len(read_collapses(folder)),
        ranks=ALONE if processes is None else processes.ranks,
    )
    if expert is not None:
        start_from_expert(module.federation, expert)
    with open_loggers(config, folder) as run_loggers:
        try:
            with _networked(config, module) as module:
                trainer = make_trainer(config, folder, plan, run_loggers, processes)
                with further_ranks(config, folder, checkpoint, processes):
                    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        finally:  # the curves of a run that was stopped by an alarm say why
            _draw_curves(config, folder)
        _write_end(config, folder, data, module)
        # Before W&B is closed: an upload may take its time, and nothing is to train by then.
        _write_finish(folder, trainer.global_step, seconds=time.monotonic() - start)
    shutil.rmtree(folder.smashed, ignore_errors=True)  # gigabytes that nobody will replay
    log.info("done: %s", folder.path)
    return module


def _checkpoint(folder: RunFolder, config: Config) -> Path | None:
    """Return the checkpoint to go on from; None if the run was stopped before its first."""
    if not folder.last.is_file():
        log.info("no checkpoint yet in %s: starting at step 0", folder.path)
        return None
    check_same_run(folder.last, config)
    return folder.last


def _processes(config: Config) -> OwnProcesses | None:
    """Return this process as the first of several; None where it is alone."""
    number = config.trainer.devices
    return None if number == 1 else OwnProcesses(Ranks(0, number), free_port())


def _note_free_keys(config: Config, folder: RunFolder) -> None:
    """Let config.yaml say how a run goes on: with how many processes, listening where."""
    recorded = folder.load_config()
    changed = changed_keys(config, recorded, FREE_ON_RESUME)
    for key, (now, before) in changed.items():
        log.info("the run goes on with %s=%s, so far %s", key, now, before)
    if changed:
        copy_keys(config, recorded, changed)
        folder.save_config(recorded)


def _networked(config: Config, module: MocoSFL) -> AbstractContextManager[MocoSFL]:
    """Put clients at the other end of streams where the run has remote ones."""
    if config.edge is None:
        return nullcontext(module)
    from mocosfl.edge.assembly import networked

    return networked(config, module)


def _check_edge(config: Config) -> None:
    """Check before anything is written that a networked run has what it needs."""
    if config.edge is None:
        return
    try:  # the libraries of the extra `edge` are not everybody's
        from mocosfl.edge.assembly import server_credentials
    except ModuleNotFoundError as error:
        raise ValueError(
            f"edge: {error.name} is not installed; install it with pip install -e '.[edge]'"
        ) from error
    server_credentials(config.edge)


def _check_fresh(folder: RunFolder) -> None:
    if folder.config.exists():
        raise ValueError(
            f"run_dir={folder.path}: holds a run already; continue it with resume={folder.path}, "
            "or choose another folder"
        )


def _check_max_steps(config: Config, plan: Plan) -> None:
    if config.trainer.max_steps > plan.num_steps:
        raise ValueError(
            f"trainer.max_steps={config.trainer.max_steps}: the run has only {plan.num_steps} "
            f"steps, {config.clients.num_rounds} rounds of {plan.steps_per_round}; raise "
            "clients.num_rounds"
        )


def _check_disk(config: Config, folder: RunFolder, plan: Plan) -> None:
    """Refuse what would fill the disk; two rounds of smashed data are kept at most."""
    free = shutil.disk_usage(folder.path).free
    if 2 * plan.attacker_bytes > free:  # a checkpoint is written beside the one before it
        raise ValueError(
            f"taressfl.decoder={config.taressfl.decoder}: the clients' attackers take "
            f"{megabytes(plan.attacker_bytes)} in each checkpoint, twice while one is replaced, "
            f"and {megabytes(free)} are free; choose a smaller decoder, fewer clients, or another "
            "output_dir"
        )
    if 2 * plan.saving_bytes > free:
        raise ValueError(
            f"saving.enabled=true: keeps up to {megabytes(2 * plan.saving_bytes)} of smashed data "
            f"in {folder.smashed}, and {megabytes(free)} are free; choose another output_dir, "
            "fewer images a client, a bottleneck (split=cut1_c4s2), or saving=off"
        )


def _check_probe(config: Config, data: FederatedData) -> None:
    """Refuse before training what the probes would refuse after it."""
    if not config.callbacks.probe_at_end:
        return
    if data.dataset.test is None:
        raise ValueError(
            f"callbacks.probe_at_end=true: {config.dataset.name} has no test images to probe with; "
            "set it to false"
        )
    neighbors, num_training = config.callbacks.knn_num_neighbors, len(data.dataset.train.labels)
    if neighbors > num_training:
        raise ValueError(
            f"callbacks.knn_num_neighbors={neighbors}: callbacks.probe_at_end=true asks for at "
            f"most the {num_training} training images"
        )


def _check_partition(folder: RunFolder, data: FederatedData) -> None:
    """Compare what the clients hold now with what they held when the run began."""
    before = Partition.load(folder.partition)
    same = np.array_equal(before.order, data.partition.order)
    if not same or not np.array_equal(before.offsets, data.partition.offsets):
        raise ValueError(
            f"resume={folder.path}: the clients would hold other images than when the run began "
            "(partition.json); put the data set back as it was, or start a fresh run"
        )


def _draw_curves(config: Config, folder: RunFolder) -> None:
    curves = read_curves(folder.metrics)
    shown = {name: curves[name] for name in CURVES if name in curves}
    if config.callbacks.pictures and shown:
        pictures.draw_curves(shown, folder.pictures / "curves.png")
    apart = {name: curves[column] for name, column in DIVERGENCE.items() if column in curves}
    if config.callbacks.pictures and apart and config.clients.num_clients > 1:
        pictures.draw_divergence(apart, folder.pictures / "divergence.png")


def write_start(config: Config, folder: RunFolder, data: FederatedData, plan: Plan) -> None:
    """Write what is known before the first step."""
    folder.save_config(config)
    write_atomically(folder.plan, describe(config, plan) + "\n")
    data.partition.save(folder.partition)
    if not config.callbacks.pictures:
        return
    folder.pictures.mkdir(parents=True, exist_ok=True)
    if not is_expert(config):  # it has no clients to deal images to
        labels, num_classes = data.dataset.train.labels, config.dataset.num_classes
        counts = data.partition.class_counts(labels, num_classes)
        pictures.draw_partition(counts, data.dataset.classes, folder.pictures / "partition.png")
    if config.edge is None:  # devices have their own images and make their own views
        _draw_views(config, folder, data)


def _write_finish(folder: RunFolder, step: int, *, seconds: float) -> None:
    """Write that all is done; a finished run that is resumed keeps what it took."""
    if not folder.finished.is_file():
        record = {"step": step, "seconds": round(seconds, 3)}
        write_atomically(folder.finished, json.dumps(record) + "\n")


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
    pictures.draw_views(
        torch.cat(images)[:NUM_VIEWS_SHOWN],
        view1,
        view2,
        mean=list(config.dataset.mean),
        std=list(config.dataset.std),
        path=folder.pictures / "views.png",
    )


def _write_end(config: Config, folder: RunFolder, data: FederatedData, module: MocoSFL) -> None:
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
        images_from="partition.json",
        num_steps=module.global_step,
        rounds_by_mode=None if saving is None else saving.num_rounds,
    )
    log.info("the overhead\n%s", describe_overhead(config, overhead))
    write_atomically(folder.overhead, to_json(config, overhead))
    log_to_wandb(folder, config, overhead_values(folder))
    if config.edge is not None:
        from mocosfl.edge import accounting  # what it needs is there, the run has used it
        from mocosfl.edge.networked_module import NetworkedMocoSFL

        assert isinstance(module, NetworkedMocoSFL)
        comparison = accounting.compare(config, module.federation.hub.ledger)
        log.info("the streams\n%s", accounting.describe(comparison))
        write_atomically(folder.edge, accounting.to_json(comparison))
    if config.callbacks.probe_at_end:
        report = probe_run(folder, config)
        log.info("the probes\n%s", table(report))
