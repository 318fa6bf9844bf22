"""The Weights & Biases run that belongs to a run's folder, continued by whatever comes later.

W&B is imported where it is used: it costs a second, and `logger=csv` does without.
"""

import json
import logging
import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mocosfl.config.schema import Config
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.json_records import read_record
from mocosfl.runs.read_metrics import read_curves
from mocosfl.system.files import write_atomically
from mocosfl.tracking.wandb_labels import label

if TYPE_CHECKING:
    from wandb import Run

log = logging.getLogger(__name__)

# Curves are drawn over it: after as many rounds, 1,000 clients have seen other amounts of images
# than 100 have.
X_AXIS = "progress/images_seen"
CURVES = ("train/*", "val/*", "sync/*", "lr/*", "privacy/*", "time/*", "edge/*")
_WAYS_OUT = {
    "online": "run `wandb login` or set WANDB_API_KEY, or stay offline with logger=csv_wandb",
    "offline": "see that the run's folder can be written to and that there is space",
}
KEPT = "wandb_summary.json"  # in the run's folder: what later parts of the W&B run repeat


class WandbTable(NamedTuple):
    """A table to show with a run."""

    columns: list[str | int]
    rows: list[list[Any]]


@contextmanager
def wandb_run(config: Config, folder: RunFolder) -> "Iterator[Run]":
    """Open a folder's W&B run and close it, or lend the one that this process has open.

    The first to open it names and describes it and shows the first pictures. Later ones, as of a
    resumed run or of a probe, give its id without a name or settings, so that they change nothing
    that is there; the summary they repeat, since W&B puts that of the last part in its place.

    Where an online run began, it stays: under `wandb agent` the sweep and not `logger` says where.

    Args:
        config: of the run.
        folder: of the run; it keeps the id and the place.

    Raises:
        ValueError: W&B can't start, or `wandb agent` wants what `logger` does not.
    """
    active = _active(folder)
    if active is not None:
        yield active
        return
    run = _open(config, folder)
    exit_code = 1
    try:
        yield run
        exit_code = 0
    finally:  # also of an exception: the jobs of a sweep would share one W&B run
        run.finish(exit_code=exit_code)


def show(
    run: "Run",
    folder: RunFolder,
    values: Mapping[str, float],
    *,
    pictures: Mapping[str, Path] | None = None,
    tables: Mapping[str, WandbTable] | None = None,
) -> None:
    """Add to what W&B shows of a run.

    Args:
        run: an open one.
        folder: of the run; it keeps what later parts of the W&B run repeat.
        values: name -> value of the summary.
        pictures: name -> PNG file.
        tables: name -> table.
    """
    import wandb

    _keep(folder, values, tables or {})
    if values:
        run.summary.update(dict(values))
    media: dict[str, Any] = {
        name: wandb.Image(str(path)) for name, path in (pictures or {}).items()
    }
    for name, table in (tables or {}).items():
        media[name] = wandb.Table(columns=table.columns, data=table.rows)
    if media:
        run.log(media)


def _keep(folder: RunFolder, values: Mapping[str, float], tables: Mapping[str, WandbTable]) -> None:
    """Add to what later parts of the W&B run repeat."""
    kept = _kept(folder)
    kept["values"].update(values)
    kept["tables"].update({name: table._asdict() for name, table in tables.items()})
    write_atomically(folder.path / KEPT, json.dumps(kept) + "\n")


def _kept(folder: RunFolder) -> dict[str, dict[str, Any]]:
    file = folder.path / KEPT
    if not file.is_file():
        return {"values": {}, "tables": {}}
    return read_record(file)


def _repeat(run: "Run", folder: RunFolder) -> None:
    """Say again what the summary has so far; pictures stay with the steps that they are of."""
    last = {name: values[-1] for name, (_, values) in read_curves(folder.metrics).items()}
    kept = _kept(folder)
    tables = {name: WandbTable(**table) for name, table in kept["tables"].items()}
    if last:
        run.summary.update(last)
    show(run, folder, kept["values"], tables=tables)


def start_pictures(folder: RunFolder) -> dict[str, Path]:
    """Return the pictures of a run's start by logged name, whether they are there or not."""
    return {
        "pictures/partition": folder.partition_picture,
        "pictures/views": folder.views_picture,
    }


def best_values(folder: RunFolder) -> dict[str, float]:
    """Return the best of the curves so far, for the summary.

    Not left to W&B, which of a resumed run knows the later part alone. And not the least loss: the
    first steps have it, while the queue is all random.

    Args:
        folder: of the run, with its `metrics.csv`.
    """
    _, accuracies = read_curves(folder.metrics).get("val/knn_top1", ([], []))
    return {"best/knn_top1": max(accuracies)} if accuracies else {}


def overhead_values(folder: RunFolder) -> dict[str, float]:
    """Return what a client of a run costs, for the summary: bytes of the mean one.

    Args:
        folder: of the run, with its `overhead.json`.
    """
    overhead = read_record(folder.overhead)
    sent = overhead["mean_client"]
    values = {f"overhead/client_{name}": number for name, number in sent.items()}
    values["overhead/client_bytes"] = sent["up_bytes"] + sent["down_bytes"]
    values["overhead/client_memory_bytes"] = max(
        client["counted_memory"]["total"] for client in overhead["clients"]
    )
    return values


def _active(folder: RunFolder) -> "Run | None":
    """Return this process's open W&B run, where it is this folder's."""
    wandb = sys.modules.get("wandb")
    run: Run | None = None if wandb is None else wandb.run
    return run if run is not None and run.id == _recorded_id(folder) else None


def _recorded_id(folder: RunFolder) -> str | None:
    return folder.wandb_id.read_text().strip() if folder.wandb_id.is_file() else None


def _open(config: Config, folder: RunFolder) -> "Run":
    run_id = _agents_id(config) or _recorded_id(folder) or uuid.uuid4().hex[:8]
    begun = run_id == _recorded_id(folder)
    run = _start(config, folder, run_id, begun=begun)
    _define_curves(run, folder)
    if begun:
        _repeat(run, folder)
    else:
        if config.logger.wandb_mode == "online":  # of an offline run, `wandb sync` decides
            place = {"entity": run.entity or None, "project": run.project}
            write_atomically(folder.wandb_place, json.dumps(place) + "\n")
        write_atomically(folder.wandb_id, run_id)
        found = {name: path for name, path in start_pictures(folder).items() if path.is_file()}
        show(run, folder, {}, pictures=found)
    if config.logger.wandb_mode == "offline":
        log.info(
            "W&B run %s, offline; upload it: wandb sync %s/wandb/offline-run-*", run_id, folder.path
        )
    else:
        log.info("W&B run %s", run.url)
    return run


def _agents_id(config: Config) -> str | None:
    """Return the id that `wandb agent` has given to its job; None where there is no agent."""
    if "WANDB_SWEEP_ID" not in os.environ:
        return None
    if config.logger.wandb_mode != "online":
        raise ValueError(
            f"logger.wandb_mode={config.logger.wandb_mode}: `wandb agent` waits for what this run "
            "sends; put logger=wandb_online into the command of the W&B sweep"
        )
    return os.environ.get("WANDB_RUN_ID")


def _place(config: Config, folder: RunFolder, *, begun: bool) -> dict[str, str | None]:
    """Return the entity and the project: where the run began, else as `logger` says."""
    if begun and folder.wandb_place.is_file():
        return read_record(folder.wandb_place)
    return {"entity": config.logger.wandb_entity, "project": config.logger.wandb_project}


def _start(config: Config, folder: RunFolder, run_id: str, *, begun: bool) -> "Run":
    settings, arguments = config.logger, dict[str, Any]()
    if settings.wandb_mode == "offline":
        # W&B's library would send reports of its own errors even from an offline run.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    if "WANDB_SWEEP_ID" not in os.environ:  # else the agent's environment says these
        arguments = {"id": run_id, **_place(config, folder, begun=begun)}
    if not begun:
        labels = label(config, folder, run_id)
        arguments |= {"name": labels.name, "group": labels.group, "tags": labels.tags}
        arguments |= {"config": labels.settings, "job_type": "train", "notes": config.notes or None}
    try:
        return wandb.init(
            dir=folder.path,
            mode="online" if settings.wandb_mode == "online" else "offline",
            # Without it `wandb sync` would put a later part in the place of the earlier ones.
            resume="allow" if begun else None,
            settings=wandb.Settings(silent=True, console="off"),
            **arguments,
        )
    except (wandb.errors.Error, OSError) as error:
        mode = settings.wandb_mode
        raise ValueError(
            f"logger.wandb_mode={mode}: W&B can't start ({error}); {_WAYS_OUT[mode]}, or choose "
            "logger=csv"
        ) from error


def _define_curves(run: "Run", folder: RunFolder) -> None:
    """Say over what the curves are drawn.

    A later part of a run names each curve that there is so far, because W&B forgets the definitions
    of those that the part itself does not log.
    """
    so_far = {name for name in read_curves(folder.metrics) if not name.startswith("progress/")}
    for name in (*sorted(so_far), *CURVES):
        run.define_metric(name, step_metric=X_AXIS)
