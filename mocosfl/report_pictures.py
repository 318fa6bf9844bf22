"""Pictures of a sweep: accuracy against clients, against the cut and against bytes.

A panel a data set, a colour a method (with what else varies), a line and mark a partition; error
bars where runs differ in the seed alone. What has no place on an axis is a dashed line across: a
central method has no clients and no traffic, a whole network no cut.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from mocosfl.report_runs import Mean, Run

_DOTS_PER_INCH = 110
_PANEL_INCHES = (5.4, 3.9)  # width, height
_CHARACTERS_PER_INCH = 12.0  # of a legend
_COLOURS = (
    "#3569a8", "#e08a2c", "#4a9b62", "#a2508f", "#7a7a7a", "#c1443c", "#3aa6a6", "#8a6d3b",
    "#6a5acd", "#c9a227",
)  # fmt: skip
_MARKS = ("o", "s", "^", "D", "v", "P")
_MEGABYTE = 2**20  # the papers' unit
_LOG_FROM = 8  # largest over smallest number of clients from which the axis is logarithmic
_MAX_TICKS = 12


class Point(NamedTuple):
    """One run, or several that differ in the seed alone."""

    panel: str
    colour: str  # what its colour stands for
    mark: str  # what its line and mark stand for
    x: float | None  # None: no place on the axis
    y: float  # fraction
    deviation: float  # NaN of a single run


class Picture(NamedTuple):
    """One of the pictures."""

    file: str
    title: str
    label: str  # of the x axis
    x: Callable[[Run], float | None]
    hidden: str  # the setting that the x axis shows
    joined: bool  # whether points of a line are joined


def draw_accuracies(
    means: Sequence[Mean], accuracy: str, *, label: str, keys: Sequence[str], folder: Path
) -> list[Path]:
    """Draw the pictures for which there is anything.

    Args:
        means: finished runs.
        accuracy: name of the result to draw.
        label: of the y axis.
        keys: settings that vary beside method, data set, partition, clients and cut.
        folder: for the PNG files.

    Returns:
        The files, three at most.
    """
    files = []
    for picture in _PICTURES:
        points = [
            point for mean in means if (point := _point(mean, accuracy, keys, picture)) is not None
        ]
        if any(point.x is not None for point in points):
            files.append(folder / picture.file)
            _draw(points, picture, label, files[-1])
    return files


def _clients(run: Run) -> float | None:
    return None if _is_central(run) else run.settings.get("clients.num_clients")


def _cut(run: Run) -> float | None:
    return run.settings.get("split.cut_layer")


def _megabytes(run: Run) -> float | None:
    sent = run.results.get("true_bytes")
    return sent / _MEGABYTE if sent else None


def _is_central(run: Run) -> bool:
    return str(run.settings.get("method.name")).startswith("central_")


_PICTURES = (
    Picture("accuracy_clients.png", "Accuracy against clients", "clients", _clients, "clients",
            True),
    Picture("accuracy_cut.png", "Accuracy against the cut",
            "cut layer (units on the client)", _cut, "cut", True),
    Picture("accuracy_bytes.png", "Accuracy against traffic",
            "MB a client, up and down, whole run", _megabytes, "", False),
)  # fmt: skip


def _point(mean: Mean, accuracy: str, keys: Sequence[str], picture: Picture) -> Point | None:
    run, spread = mean.runs[0], mean.spread(accuracy)
    if spread is None:
        return None
    base = run.base()
    parts = [str(base["method"])]
    if picture.hidden != "clients" and not _is_central(run):
        parts.append(f"{base['clients']:,} clients")
    if picture.hidden != "cut" and base["cut"] != "whole":
        parts.append(f"cut {base['cut']}")
    elif run.settings.get("split.bottleneck_channels") is not None:
        parts.append(str(base["cut"]).partition(" ")[2])
    parts += [f"{key.rpartition('.')[2]} {_short(run.settings.get(key))}" for key in keys]
    return Point(
        panel=str(base["dataset"]),
        colour=", ".join(parts),
        mark=str(base["partition"]),
        x=picture.x(run),
        y=spread[0],
        deviation=spread[1],
    )


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 24 else f"{text[:10]}...{text[-10:]}"


def _draw(points: Sequence[Point], picture: Picture, label: str, path: Path) -> None:
    panels = sorted({point.panel for point in points})
    # What is the same everywhere need not be said in every line of the legend.
    points = _without_shared_words(points)
    colours = sorted({point.colour for point in points})
    marks = sorted({point.mark for point in points})
    lines = [(c, m) for c in colours for m in marks if (c, m) in {p[1:3] for p in points}]
    width = _PANEL_INCHES[0] * len(panels)
    longest = max(len(f"{colour}, {mark}") for colour, mark in lines)
    columns = max(1, int(width * _CHARACTERS_PER_INCH // (longest + 8)))
    rows = -(-len(lines) // columns)
    figure = Figure(
        figsize=(width, _PANEL_INCHES[1] + 0.25 * rows), dpi=_DOTS_PER_INCH, layout="constrained"
    )
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(grid, panels, strict=True):
        shown = [point for point in points if point.panel == panel]
        for line in lines:
            own = [point for point in shown if point[1:3] == line]
            _draw_line(axes, own, picture.joined, *_style(line, colours, marks))
        axes.set(title=panel, xlabel=picture.label)
        _ticks(axes, picture, [point.x for point in shown if point.x is not None])
    grid[0].set_ylabel(label)
    handles = [_handle(line, colours, marks) for line in lines]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
    figure.suptitle(picture.title)
    figure.savefig(path)


def _without_shared_words(points: Sequence[Point]) -> list[Point]:
    words = [point.colour.split(", ") for point in points]
    shared = set.intersection(*map(set, words)) if len({p.colour for p in points}) > 1 else set()
    return [
        point._replace(colour=", ".join([own[0], *(w for w in own[1:] if w not in shared)]))
        for point, own in zip(points, words, strict=True)
    ]


def _style(
    line: tuple[str, str], colours: Sequence[str], marks: Sequence[str]
) -> tuple[str, str, str]:
    """Return colour, mark and line of what a legend calls one line."""
    colour, mark = colours.index(line[0]), marks.index(line[1])
    dashes = ("-", "-.", ":")[(mark + colour // len(_COLOURS)) % 3]
    return _COLOURS[colour % len(_COLOURS)], _MARKS[mark % len(_MARKS)], dashes


def _draw_line(
    axes: Axes, points: Sequence[Point], joined: bool, colour: str, mark: str, dashes: str
) -> None:
    placed = sorted((p.x, p.y, p.deviation) for p in points if p.x is not None)
    if placed:
        xs, ys, deviations = zip(*placed, strict=True)
        bars = [0.0 if math.isnan(value) else 100 * value for value in deviations]
        axes.errorbar(
            xs,
            [100 * y for y in ys],
            yerr=bars if any(bars) else None,
            color=colour,
            marker=mark,
            linestyle=dashes if joined else "none",
            markersize=5,
            linewidth=1.3,
            capsize=3,
        )
    for point in points:
        if point.x is None:
            axes.axhline(100 * point.y, color=colour, linestyle=(0, (6, 3)), linewidth=1.1)
            if not math.isnan(point.deviation):
                low, high = point.y - point.deviation, point.y + point.deviation
                axes.axhspan(100 * low, 100 * high, color=colour, alpha=0.12, linewidth=0)


def _handle(line: tuple[str, str], colours: Sequence[str], marks: Sequence[str]) -> Line2D:
    colour, mark, dashes = _style(line, colours, marks)
    label = f"{line[0]}, {line[1]}"
    return Line2D([], [], color=colour, marker=mark, linestyle=dashes, markersize=5, label=label)


def _ticks(axes: Axes, picture: Picture, values: Sequence[float]) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(y=0.12)
    if not values:
        axes.set_xticks([])
        return
    places = sorted(set(values))
    wide = places[-1] / places[0] >= _LOG_FROM
    if not picture.joined or (picture.hidden == "clients" and wide):
        axes.set_xscale("log")
    if picture.joined and len(places) <= _MAX_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(places))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if len(places) == 1:  # a place alone would be scaled to nothing
        axes.set_xlim(places[0] * 0.5, places[0] * 2)
