"""The curves of a run for a page: read without torch, over rounds or images, smoothed and thinned.

Legend: T logged values of a quantity, P points that are drawn.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mocosfl.runs.read_metrics import read_metrics

Values = npt.NDArray[np.float64]

_WINDOWS = 20  # a running mean is over this part of a curve,
_LEAST_WINDOW = 5  # but over so many values at least,
_SMOOTH_FROM = 20  # of a curve with at least so many
_HIDDEN = {"step", "epoch", "time/step_seconds", "val/knn_seconds"}


class Quantity(NamedTuple):
    """What a column of metrics.csv holds, in words."""

    column: str
    title: str
    unit: str  # label of the y axis
    words: str  # for the caption
    percent: bool = False  # a fraction, drawn in percent
    noisy: bool = False  # of single batches: drawn with a running mean


QUANTITIES = (
    Quantity(
        "train/loss", "Loss", "loss, nats",
        "Loss of the training batches. Comparable between runs with the same method and the same "
        "moco settings alone.", noisy=True,
    ),
    Quantity(
        "val/knn_top1", "kNN on training images", "accuracy, % of images",
        "The monitor during training: training images classified by their neighbours. "
        "Test images are left to the probe.", percent=True,
    ),
    Quantity(
        "train/contrast_accuracy", "Contrast accuracy", "accuracy, % of queries",
        "Queries that are nearer to their own key than to any key in the queue; where the loss is "
        "two-sided, of the second pass, in which the keys are the queries.",
        percent=True, noisy=True,
    ),
    Quantity(
        "train/accuracy", "Training accuracy", "accuracy, % of images",
        "Of the training batches; a supervised method.", percent=True, noisy=True,
    ),
    Quantity(
        "train/embedding_std", "Embedding std", "std of the embeddings x √D",
        "How the embeddings are spread: 1 is evenly, near 0 is collapsed; of the second pass where "
        "the loss is two-sided.", noisy=True,
    ),
    Quantity("lr/server", "Learning rate, server", "learning rate", "Of trunk and projector."),
    Quantity("lr/clients", "Learning rate, clients", "learning rate", "Of the heads."),
    Quantity(
        "sync/divergence_mean", "Divergence of the heads", "L2 norms of the tensors, summed",
        "How far the clients' heads were from their mean at each sync, mean over the pool.",
    ),
    Quantity(
        "privacy/attacker_ssim", "Simulated attacker", "SSIM",
        "How well the simulated attacker reconstructs the clients' views; 1 is exactly.",
        noisy=True,
    ),
    Quantity(
        "privacy/penalty", "Privacy penalty", "penalty",
        "What the heads are punished with for what the attacker sees.", noisy=True,
    ),
    Quantity(
        "train/traffic", "Traffic mode", "0 A, 1 B, 2 C",
        "Saving by loss: A all traffic, B uploads alone, C none.",
    ),
    Quantity(
        "time/images_per_second", "Speed", "images a second",
        "Of training, the kNN monitor and checkpoints in between included.", noisy=True,
    ),
)  # fmt: skip


class Axis(NamedTuple):
    """What curves are drawn over."""

    column: str  # of metrics.csv
    label: str


STEPS = Axis("step", "steps")
ROUNDS = Axis("progress/rounds", "rounds")
IMAGES = Axis("progress/images_seen", "images seen")


class LoggedCurve(NamedTuple):
    """A logged quantity; only finite values."""

    values: Values  # (T,)
    places: dict[str, Values]  # column of an axis -> (T,), of the axes that all rows have


LoggedCurves = dict[str, LoggedCurve]


def drawable_curves(path: Path) -> LoggedCurves:
    """Return name -> curve of a metrics file; {} without one.

    Raises:
        ValueError: the file is damaged, or a value is not a number.
    """
    rows = read_metrics(path)
    table = {column: _column(rows, column) for column in (rows[0] if rows else {}) if column}
    axes = {a.column: table[a.column] for a in (STEPS, ROUNDS, IMAGES) if a.column in table}
    if "step" not in axes:
        return {}
    if not np.isfinite(axes["step"]).all():
        raise ValueError("a step is not a number")
    axes["step"] = axes["step"] + 1  # the file counts from 0
    curves = {}
    for name, values in table.items():
        known = np.isfinite(values)
        if name in axes or not known.any():
            continue
        places = {column: x[known] for column, x in axes.items() if np.isfinite(x[known]).all()}
        curves[name] = LoggedCurve(values[known], places)
    return curves


def _column(rows: Sequence[dict[str, str]], column: str) -> Values:
    return np.array([float(row.get(column) or math.nan) for row in rows])


def shared_axis(runs: Sequence[LoggedCurves]) -> Axis:
    """Return what the curves of some runs are best compared over.

    Rounds of one run; images seen of several, whose rounds may differ in length. Steps where a row
    was cut short and lacks them.
    """
    wanted = (ROUNDS, IMAGES) if len(runs) == 1 else (IMAGES, ROUNDS)
    curves = [curve for run in runs for curve in run.values()]
    return next((a for a in wanted if all(a.column in c.places for c in curves)), STEPS)


def quantities(runs: Sequence[LoggedCurves]) -> list[Quantity]:
    """Return what there is to draw: the known quantities first, then columns of other names.

    Of the divergence only the mean is one. The clients' learning rate is one where it differs from
    the server's in some of several runs.
    """
    names = {name for run in runs for name in run}
    known = [quantity for quantity in QUANTITIES if quantity.column in names]
    if all(same_rates(run) for run in runs):
        known = _merged(known, "Learning rate", "Of server and clients alike.")
    elif len(runs) == 1:
        known = _merged(known, "Learning rates", "Of the server's part and of the heads.")
    taken = {quantity.column for quantity in QUANTITIES} | _HIDDEN
    others = sorted(n for n in names - taken if not n.startswith("sync/divergence_"))
    return known + [_unknown(name) for name in others]


def same_rates(run: LoggedCurves) -> bool:
    """Return whether the clients' learning rate is the server's all along."""
    if not {"lr/server", "lr/clients"} <= set(run):
        return False
    return np.array_equal(run["lr/server"].values, run["lr/clients"].values)


def _merged(known: Sequence[Quantity], title: str, words: str) -> list[Quantity]:
    """Let the server's learning rate stand for both."""
    return [
        q._replace(title=title, words=words) if q.column == "lr/server" else q
        for q in known
        if q.column != "lr/clients"
    ]


def _unknown(name: str) -> Quantity:
    words = name.rpartition("/")[2].replace("_", " ")
    percent = "top1" in name or "accuracy" in name
    unit = "accuracy, %" if percent else words
    return Quantity(name, words[:1].upper() + words[1:], unit, f"Logged as {name}.", percent)


def window_of(num_values: int) -> int:
    """Return over how many of T values a running mean goes."""
    if num_values < _SMOOTH_FROM:
        return 1
    return max(_LEAST_WINDOW, num_values // _WINDOWS)


def smoothed(values: Values, window: int) -> Values:
    """Return the running mean of (T,) values, over fewer at both ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    middles = np.arange(len(values))
    # As many on both sides, so that a slope stays where it is.
    reach = np.minimum(np.minimum(middles, len(values) - 1 - middles), window // 2)
    means: Values = (sums[middles + reach + 1] - sums[middles - reach]) / (2 * reach + 1)
    return means


def thinned(x: Values, y: Values, num_points: int) -> tuple[Values, Values]:
    """Return at most P points of a curve, evenly taken, its first and last among them."""
    if len(x) <= num_points:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, num_points).round().astype(int))
    return x[kept], y[kept]
