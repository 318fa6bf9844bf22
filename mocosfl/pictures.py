"""The pictures a run writes: who holds what, what the views look like, how training went.

Every function writes one PNG file and keeps no state (matplotlib's object interface, no pyplot).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

Curve = tuple[Sequence[float], Sequence[float]]  # steps, values

_DOTS_PER_INCH = 110
_MAX_CLIENTS_SHOWN = 100  # columns of the heat map: more would be thinner than a line
_MAX_NUMBERED_CLIENTS = 20  # up to here each cell carries its number
_MAX_NAMED_TICKS = 24  # class names beside a heat map or under bars
_MAX_DOT_CLASSES = 200  # above this many classes only the sorted accuracies are drawn
_DOT_ROWS = 50  # classes a column of the dot picture
_MAX_COLOURED_CLASSES = 20  # of the embedding map: more could not be told apart
_SMOOTH_FROM = 300  # points of a curve above which a running mean is drawn
_LEGEND_INCHES = 3.0  # width of a probe's name with its mean
_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")
_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g}")
_PROBE_COLOURS = ("#3569a8", "#e08a2c", "#4a9b62", "#a2508f", "#7a7a7a")


def draw_partition(class_counts: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draw which client holds how many images of which class.

    Up to 100 clients are columns of a heat map; of more, an even sample of 100 is (averaging
    neighbours would make every partition look IID). Histograms below cover all clients.

    Args:
        class_counts: (N, C) images, integers at least 0.
        classes: C names.
        path: PNG file to write.
    """
    num_clients, num_classes = class_counts.shape
    shown = np.unique(np.linspace(0, num_clients - 1, _MAX_CLIENTS_SHOWN).round().astype(int))
    height = 3.6 + min(max(0.24 * num_classes, 1.8), 6.0)
    figure = _figure(11.0, height)
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[height - 2.6, 2.6])
    heat, histograms = parts[:, 0]
    axes = heat.subplots()
    held = np.ma.masked_equal(class_counts[shown].T, 0)  # none at all stays white
    image = axes.imshow(held, aspect="auto", cmap="YlGnBu", vmin=0, interpolation="nearest")
    ticks = MaxNLocator(integer=True)
    heat.colorbar(image, ax=axes, label="images", pad=0.01, fraction=0.04, ticks=ticks)
    sample = "" if len(shown) == num_clients else f" (an even sample of {len(shown)})"
    clients = "1 client" if num_clients == 1 else f"{num_clients:,} clients"
    axes.set_title(f"Images of each class at {clients}{sample}")
    _label_clients(axes, shown)
    _label_classes(axes, classes)
    if num_clients <= _MAX_NUMBERED_CLIENTS and num_classes <= _MAX_NAMED_TICKS:
        _write_counts(axes, class_counts)
    left, right = histograms.subplots(1, 2)
    _histogram(left, class_counts.sum(axis=1), "images a client")
    _histogram(right, (class_counts > 0).sum(axis=1), "classes a client")
    figure.savefig(path)


def draw_views(
    images: Tensor,
    view1: Tensor,
    view2: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    path: Path,
) -> None:
    """Draw images above their two views.

    Args:
        images: (R, 3, H, W) uint8; about 12 look good.
        view1: (R, 3, O, O) float, normalised.
        view2: (R, 3, O, O) float, normalised.
        mean: of each channel, as used to normalise.
        std: of each channel.
        path: PNG file to write.
    """
    centre, scale = (torch.tensor(values)[:, None, None] for values in (mean, std))
    rows = {"image": images.float().cpu() / 255.0}
    for name, view in (("view 1", view1), ("view 2", view2)):
        rows[name] = view.float().cpu() * scale + centre
    figure = _figure(1.0 * len(images) + 0.6, 3.6)
    grid = figure.subplots(3, len(images), squeeze=False)
    for line, (name, pictures) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(name)
        for axes, picture in zip(line, pictures, strict=True):
            pixels = picture.clamp(0.0, 1.0).permute(1, 2, 0).numpy()
            axes.imshow(pixels, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    figure.suptitle("Two random views of each image, as the network sees them")
    figure.savefig(path)


def draw_curves(metrics: Mapping[str, Curve], path: Path) -> None:
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
    figure = _figure(4.4 * columns, 3.0 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, (steps, values)) in zip(panels, metrics.items(), strict=False):
        _draw_curve(axes, np.asarray(steps, float), np.asarray(values, float))
        axes.set(title=name, xlabel="step")
        _label_values(axes, name)
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    figure.savefig(path)


def draw_divergence(curves: Mapping[str, Curve], path: Path) -> None:
    """Draw how far the clients' heads were from their mean, at each sync.

    Args:
        curves: `mean`, `std`, `least` and `most` over the clients -> (steps, values).
        path: PNG file to write.
    """
    steps = np.asarray(curves["mean"][0], float)
    mean, std, least, most = (
        np.asarray(curves[name][1], float) for name in ("mean", "std", "least", "most")
    )
    figure = _figure(7.0, 3.6)
    axes = figure.subplots()
    colour = _PROBE_COLOURS[0]
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
    axes.xaxis.set_major_formatter(_THOUSANDS)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)


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
    if len(classes) <= _MAX_NAMED_TICKS:
        figure = _class_bars(accuracies, classes)
    elif len(classes) <= _MAX_DOT_CLASSES:
        figure = _class_dots(accuracies, classes)
    else:
        figure = _class_curves(accuracies)
    figure.suptitle("Accuracy on the test images of each class")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = max(1, int(figure.get_figwidth() // _LEGEND_INCHES))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    figure.savefig(path)


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
    figure = _figure(8.4 if named else 7.6, 6.0)
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
    figure.savefig(path)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained")


def _label_clients(axes: Axes, shown: np.ndarray) -> None:
    axes.set_xlabel("client number")
    step = max(1, -(-len(shown) // 20))
    ticks = np.arange(0, len(shown), step)
    axes.set_xticks(ticks, [str(shown[tick]) for tick in ticks])


def _label_classes(axes: Axes, classes: Sequence[str]) -> None:
    if len(classes) <= _MAX_NAMED_TICKS:
        axes.set_yticks(range(len(classes)), list(classes))
    else:
        axes.set_ylabel("class number")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _write_counts(axes: Axes, class_counts: np.ndarray) -> None:
    dark = 0.55 * class_counts.max()
    for (client, label), count in np.ndenumerate(class_counts):
        if count:
            colour = "white" if count > dark else "black"
            axes.text(client, label, f"{count}", ha="center", va="center", color=colour, size=8)


def _histogram(axes: Axes, values: np.ndarray, label: str) -> None:
    """Bars of how many clients have each value, or each range of about 30."""
    low, high = int(values.min()), int(values.max())
    width = max(1, -(-(high - low + 1) // 30))
    edges = np.arange(low, high + width + 1, width) - 0.5
    axes.hist(values, bins=edges.tolist(), color=_PROBE_COLOURS[0], rwidth=0.9)
    margin = max(0.1, 3.5 - (high - low) / 2)  # one bar alone shouldn't fill the panel
    axes.set(xlabel=label, ylabel="clients")
    axes.set_xlim(max(edges[0] - margin, -0.6), edges[-1] + margin)
    for axis, bins in ((axes.xaxis, 9), (axes.yaxis, 5)):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=bins))
        axis.set_major_formatter(_THOUSANDS)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_curve(axes: Axes, steps: np.ndarray, values: np.ndarray) -> None:
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    smooth = len(values) >= _SMOOTH_FROM
    mark = "o" if len(values) <= 30 else ""
    axes.plot(
        steps, values, color=_PROBE_COLOURS[0], alpha=0.3 if smooth else 1.0, lw=1.2, marker=mark,
        markersize=3.5,
    )  # fmt: skip
    if smooth:
        window = len(values) // 50
        mean = np.convolve(values, np.full(window, 1.0 / window), mode="valid")
        middles = steps[window // 2 : window // 2 + len(mean)]
        axes.plot(middles, mean, color=_PROBE_COLOURS[0], lw=1.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.xaxis.set_major_formatter(_THOUSANDS)
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


def _class_bars(accuracies: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    figure = _figure(max(7.0, 2.0 + 0.9 * len(classes)), 4.4)
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
    figure = _figure(4.4 * columns, 1.6 + 0.19 * rows)
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
    figure = _figure(9.5, 4.4)
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
    return _PROBE_COLOURS[index % len(_PROBE_COLOURS)]


def _legend(name: str, values: np.ndarray) -> str:
    known = values[~np.isnan(values)]
    return f"{name} (mean {100 * known.mean():.1f} %)" if len(known) else name
