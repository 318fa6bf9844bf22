"""The pictures of how training went: what was logged over the steps, and how far heads were apart.

Every function writes one PNG file and keeps no state (matplotlib's object interface, no pyplot).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mocosfl.pictures.style import COLOURS, THOUSANDS, blank_figure

Points = tuple[Sequence[float], Sequence[float]]  # steps, values

_SMOOTH_FROM = 300  # points of a curve above which a running mean is drawn
_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g}")


def draw_metrics(metrics: Mapping[str, Points], path: Path) -> None:
    """Draw each logged quantity over the training steps, a panel each.

    Args:
        metrics: name, such as `train/loss`, -> (steps, values); accuracies as fractions.
        path: PNG file to write.

    Raises:
        ValueError: if there is nothing to draw.
    """
    if not metrics:
        raise ValueError("metrics: nothing to draw, at least one curve expected")
    columns = min(len(metrics), 3 if len(metrics) != 4 else 2)
    rows = -(-len(metrics) // columns)
    figure = blank_figure(4.4 * columns, 3.0 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, (steps, values)) in zip(panels, metrics.items(), strict=False):
        _draw_curve(axes, np.asarray(steps, float), np.asarray(values, float))
        axes.set(title=name, xlabel="step")
        _label_values(axes, name)
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    figure.savefig(path, format="png")


def draw_divergence(curves: Mapping[str, Points], path: Path) -> None:
    """Draw how far the clients' heads were from their mean, at each sync.

    Args:
        curves: `mean`, `std`, `least` and `most` over the clients -> (steps, values).
        path: PNG file to write.
    """
    steps = np.asarray(curves["mean"][0], float)
    mean, std, least, most = (
        np.asarray(curves[name][1], float) for name in ("mean", "std", "least", "most")
    )
    figure = blank_figure(7.0, 3.6)
    axes = figure.subplots()
    colour = COLOURS[0]
    mark = "o" if len(steps) <= 30 else ""
    axes.fill_between(steps, least, most, color=colour, alpha=0.15, lw=0, label="least to most")
    axes.fill_between(
        steps, np.maximum(mean - std, least), np.minimum(mean + std, most), color=colour,
        alpha=0.35, lw=0, label="mean ± standard deviation",
    )  # fmt: skip
    axes.plot(steps, mean, color=colour, lw=1.5, marker=mark, markersize=3.5, label="mean")
    axes.set(
        title="Divergence of the clients' heads from their mean",
        xlabel="step of the sync",
        ylabel="L2 norms of the tensors, summed",
    )
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, format="png")


def _draw_curve(axes: Axes, steps: np.ndarray, values: np.ndarray) -> None:
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    smooth = len(values) >= _SMOOTH_FROM
    mark = "o" if len(values) <= 30 else ""
    axes.plot(
        steps, values, color=COLOURS[0], alpha=0.3 if smooth else 1.0, lw=1.2, marker=mark,
        markersize=3.5,
    )  # fmt: skip
    if smooth:
        window = len(values) // 50
        mean = np.convolve(values, np.full(window, 1.0 / window), mode="valid")
        middles = steps[window // 2 : window // 2 + len(mean)]
        axes.plot(middles, mean, color=COLOURS[0], lw=1.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _label_values(axes: Axes, name: str) -> None:
    if any(part in name for part in ("top1", "accuracy")):
        axes.yaxis.set_major_formatter(_PERCENT)
        axes.set_ylabel("accuracy, % of images")
    elif name.endswith("loss"):
        axes.set_ylabel("loss, nats")
    elif name.endswith("_seconds"):
        axes.set_ylabel("seconds")
    else:
        axes.set_ylabel(name.rpartition("/")[2].replace("_", " "))
