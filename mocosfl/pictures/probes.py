"""The pictures of a probe: each class's accuracy, and a map of the features.

Every function writes one PNG file and keeps no state (matplotlib's object interface, no pyplot).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mocosfl.pictures.style import COLOURS, MAX_NAMED_CLASSES, blank_figure

_MAX_DOT_CLASSES = 200  # above this many classes only the sorted accuracies are drawn
_DOT_ROWS = 50  # classes a column of the dot picture
_MAX_COLOURED_CLASSES = 20  # of the embedding map: more could not be told apart
_LEGEND_INCHES = 3.0  # width of a probe's name with its mean


def draw_per_class(
    per_class: Mapping[str, Sequence[float] | Tensor], classes: Sequence[str], path: Path
) -> None:
    """Draw the test accuracy of each class under each probe.

    Bars for up to 24 classes; dots, sorted by the first probe, for up to 200; sorted curves above.

    Args:
        per_class: probe's name -> (C,) fractions in [0, 1]; NaN where a class has no test images.
        classes: C names.
        path: PNG file to write.

    Raises:
        ValueError: if there is no probe.
    """
    if not per_class:
        raise ValueError("per_class: nothing to draw, at least one probe expected")
    accuracies = {name: np.asarray(values, float) for name, values in per_class.items()}
    if len(classes) <= MAX_NAMED_CLASSES:
        figure = _class_bars(accuracies, classes)
    elif len(classes) <= _MAX_DOT_CLASSES:
        figure = _class_dots(accuracies, classes)
    else:
        figure = _class_curves(accuracies)
    figure.suptitle("Accuracy on the test images of each class")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = max(1, int(figure.get_figwidth() // _LEGEND_INCHES))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    figure.savefig(path, format="png")


def draw_embedding_map(
    places: np.ndarray, labels: np.ndarray, classes: Sequence[str], path: Path
) -> None:
    """Draw a map of images, a dot each, coloured by class.

    Up to 20 classes have a colour and a name each; more share a scale of colours by class number.

    Args:
        places: (M, 2).
        labels: (M,) in [0, C).
        classes: C names.
        path: PNG file to write.
    """
    named = len(classes) <= _MAX_COLOURED_CLASSES
    figure = blank_figure(8.4 if named else 7.6, 6.0)
    axes = figure.subplots()
    size = float(np.clip(18_000 / len(places), 5, 30))  # few dots are larger
    if named:
        colours = colormaps["tab10" if len(classes) <= 10 else "tab20"]
        for label, name in enumerate(classes):
            own = places[labels == label]
            axes.scatter(
                own[:, 0], own[:, 1], s=size, color=colours(label), lw=0, alpha=0.75, label=name
            )
        legend = figure.legend(loc="outside right center", frameon=False, markerscale=2.5)
        for handle in legend.legend_handles:
            handle.set_alpha(1.0)  # type: ignore[union-attr]
    else:
        dots = axes.scatter(
            places[:, 0], places[:, 1], s=size, c=labels, cmap="turbo", lw=0, alpha=0.75
        )
        dots.set_clim(0, len(classes) - 1)
        figure.colorbar(dots, ax=axes, label="class number", pad=0.01, fraction=0.04)
    axes.set(title=f"t-SNE of the features of {len(places):,} test images", xticks=[], yticks=[])
    axes.margins(0.03)
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[:].set_alpha(0.3)
    figure.savefig(path, format="png")


def _class_bars(accuracies: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    figure = blank_figure(max(7.0, 2.0 + 0.9 * len(classes)), 4.4)
    axes = figure.subplots()
    width = 0.8 / len(accuracies)
    for index, (name, values) in enumerate(accuracies.items()):
        places = np.arange(len(classes)) + (index - (len(accuracies) - 1) / 2) * width
        bars = axes.bar(
            places, values, 0.92 * width, color=_colour(index), label=_legend(name, values)
        )
        if len(accuracies) <= 3 and len(classes) <= 12:
            texts = ["" if np.isnan(value) else f"{100 * value:.0f}" for value in values]
            axes.bar_label(bars, texts, size=7, padding=1)
    axes.set_xticks(range(len(classes)), list(classes), rotation=30, ha="right")
    axes.set(xlim=(-0.6, len(classes) - 0.4), ylabel="accuracy, %")
    _percent_axis(axes, "y")
    return figure


def _class_dots(accuracies: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """One line a class, a dot a probe, in columns of 50 classes, best first."""
    order = np.argsort(-np.nan_to_num(next(iter(accuracies.values()))), kind="stable")
    columns = -(-len(classes) // _DOT_ROWS)
    rows = -(-len(classes) // columns)
    figure = blank_figure(4.4 * columns, 1.6 + 0.19 * rows)
    for column, axes in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
        part = order[column * rows : (column + 1) * rows]
        lines = np.arange(len(part))
        for index, (name, values) in enumerate(accuracies.items()):
            axes.plot(
                values[part], lines, "o", ms=5, color=_colour(index), label=_legend(name, values)
            )
        axes.set_yticks(lines, [classes[label] for label in part], size=8)
        axes.set(ylim=(rows - 0.4, -0.6), xlabel="accuracy, %")
        _percent_axis(axes, "x")
        axes.grid(axis="y", alpha=0.2)
    return figure


def _class_curves(accuracies: Mapping[str, np.ndarray]) -> Figure:
    figure = blank_figure(9.5, 4.4)
    axes = figure.subplots()
    for index, (name, values) in enumerate(accuracies.items()):
        known = np.sort(values[~np.isnan(values)])[::-1]
        axes.plot(
            range(1, len(known) + 1), known, color=_colour(index), label=_legend(name, values)
        )
    axes.set(xlabel="rank of the class, best first", ylabel="accuracy, %")
    _percent_axis(axes, "y")
    return figure


def _percent_axis(axes: Axes, which: str) -> None:
    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = (-0.02, 1.02) if which == "x" else (0.0, 1.05)
    axes.set(**{f"{which}lim": (low, high)})
    axis.set_ticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "25", "50", "75", "100"])
    axis.grid(True, alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _legend(name: str, values: np.ndarray) -> str:
    known = values[~np.isnan(values)]
    return f"{name} (mean {100 * known.mean():.1f} %)" if len(known) else name
