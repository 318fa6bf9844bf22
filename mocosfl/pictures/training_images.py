"""The pictures of what a run trains on: who holds which images, and what their views look like.

Every function writes one PNG file and keeps no state (matplotlib's object interface, no pyplot).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from mocosfl.pictures.style import COLOURS, MAX_NAMED_CLASSES, THOUSANDS, blank_figure

_MAX_CLIENTS_SHOWN = 100  # columns of the heat map: more would be thinner than a line
_MAX_NUMBERED_CLIENTS = 20  # up to here each cell carries its number


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
    figure = blank_figure(11.0, height)
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
    if num_clients <= _MAX_NUMBERED_CLIENTS and num_classes <= MAX_NAMED_CLASSES:
        _write_counts(axes, class_counts)
    left, right = histograms.subplots(1, 2)
    _histogram(left, class_counts.sum(axis=1), "images a client")
    _histogram(right, (class_counts > 0).sum(axis=1), "classes a client")
    figure.savefig(path, format="png")


def draw_view_pairs(
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
    figure = blank_figure(1.0 * len(images) + 0.6, 3.6)
    grid = figure.subplots(3, len(images), squeeze=False)
    for line, (name, pictures) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(name)
        for axes, picture in zip(line, pictures, strict=True):
            pixels = picture.clamp(0.0, 1.0).permute(1, 2, 0).numpy()
            axes.imshow(pixels, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    figure.suptitle("Two random views of each image, as the network sees them")
    figure.savefig(path, format="png")


def _label_clients(axes: Axes, shown: np.ndarray) -> None:
    axes.set_xlabel("client number")
    step = max(1, -(-len(shown) // 20))
    ticks = np.arange(0, len(shown), step)
    axes.set_xticks(ticks, [str(shown[tick]) for tick in ticks])


def _label_classes(axes: Axes, classes: Sequence[str]) -> None:
    if len(classes) <= MAX_NAMED_CLASSES:
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
    axes.hist(values, bins=edges.tolist(), color=COLOURS[0], rwidth=0.9)
    margin = max(0.1, 3.5 - (high - low) / 2)  # one bar alone shouldn't fill the panel
    axes.set(xlabel=label, ylabel="clients")
    axes.set_xlim(max(edges[0] - margin, -0.6), edges[-1] + margin)
    for axis, bins in ((axes.xaxis, 9), (axes.yaxis, 5)):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=bins))
        axis.set_major_formatter(THOUSANDS)
    axes.spines[["top", "right"]].set_visible(False)
