"""Pictures of a sweep: accuracy against clients, against the cut and against bytes.

A panel a data set, a colour a method (with what else varies), a line and mark a partition; error
bars where runs differ in the seed alone. What has no place on an axis is a dashed line across: a
central method has no clients and no traffic, a whole network no cut.
"""

import math
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mocosfl.config.methods import method_of
from mocosfl.pictures.style import COLOURS, blank_figure
from mocosfl.report.accuracy_ticks import place_ticks
from mocosfl.report.runs import Mean, Run
from mocosfl.system.files import replaced
from mocosfl.system.units import MEGABYTE

_PANEL_INCHES = (5.4, 3.9)  # width, height
_MIN_INCHES = 7.5  # width of a picture, so that a legend has room
_CHARACTERS_PER_INCH = 12.0  # of a legend
_COLOURS = (*COLOURS, "#c1443c", "#3aa6a6", "#8a6d3b", "#6a5acd", "#c9a227")
_MARKS = ("o", "s", "^", "D", "v", "P")


class Point(NamedTuple):
    """One run, or several that differ in the seed alone."""

    panel: str
    colour: str  # what its colour stands for
    mark: str  # what its line and mark stand for
    x: float | None  # None: no place on the axis
    y: float  # fraction
    deviation: float  # NaN of a single run


class Style(NamedTuple):
    """How a line is drawn."""

    colour: str
    mark: str
    dashes: str
    across: tuple[int, tuple[int, ...]]  # dashes of a line across the panel


class AccuracyPicture(NamedTuple):
    """One of the pictures."""

    name: str  # of what accuracy is drawn against
    label: str  # of the x axis
    x: Callable[[Run], float | None]  # None: no place on the axis; NaN: not known
    hidden: tuple[str, ...]  # settings that its lines do not tell apart
    joined: bool = True  # whether points of a line are joined


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
            files.append(_file(picture, folder))
            _draw(points, picture, label, files[-1])
    return files


def remove_others(drawn: Sequence[Path], folder: Path) -> None:
    """Remove the pictures of an earlier report that are not among those drawn now."""
    for picture in _PICTURES:
        if _file(picture, folder) not in drawn:
            _file(picture, folder).unlink(missing_ok=True)


def _file(picture: AccuracyPicture, folder: Path) -> Path:
    return folder / f"accuracy_{picture.name}.png"


def _clients(run: Run) -> float | None:
    return None if _is_central(run) else run.settings.get("clients.num_clients")


def _cut(run: Run) -> float | None:
    return run.settings.get("split.cut_layer")


def _megabytes(run: Run) -> float | None:
    sent = run.results.get("true_bytes")
    if sent is None:
        return math.nan
    return sent / MEGABYTE if sent else None  # a logarithmic axis has no place for none at all


def _is_central(run: Run) -> bool:
    return method_of(run.settings.get("method.name")).central


_PICTURES = (
    AccuracyPicture(name="clients", label="clients", x=_clients, hidden=("clients",)),
    AccuracyPicture(name="cut", label="cut layer (units on the client)", x=_cut, hidden=("cut",)),
    AccuracyPicture(
        name="bytes",
        label="MB a client, up and down, whole run",
        x=_megabytes,
        hidden=("clients", "cut"),
        joined=False,
    ),
)


def _point(
    mean: Mean, accuracy: str, keys: Sequence[str], picture: AccuracyPicture
) -> Point | None:
    """Return the point of runs that differ in the seed alone; None where x or y is not known."""
    run, spread, x = mean.runs[0], mean.spread(accuracy), _place(mean, accuracy, picture)
    if spread is None or (x is not None and math.isnan(x)):
        return None
    base = run.base()
    parts = [str(base["method"])]
    if "clients" not in picture.hidden and not _is_central(run):
        parts.append(f"{base['clients']:,} clients")
    if "cut" not in picture.hidden and base["cut"] != "whole":
        parts.append(f"cut {base['cut']}")
    elif run.settings.get("split.bottleneck_channels") is not None:
        parts.append(str(base["cut"]).partition(" ")[2])
    parts += [f"{key.rpartition('.')[2]} {_short(run.settings.get(key))}" for key in keys]
    return Point(
        panel=str(base["dataset"]),
        colour=", ".join(parts),
        mark=str(base["partition"]),
        x=x,
        y=spread[0],
        deviation=spread[1],
    )


def _place(mean: Mean, accuracy: str, picture: AccuracyPicture) -> float | None:
    """Return the mean x of the runs that the accuracy is of; NaN where none is known."""
    places = [picture.x(run) for run in mean.runs if run.results.get(accuracy) is not None]
    if None in places:  # what has no place on the axis has none whatever the seed
        return None
    known = [x for x in places if x is not None and not math.isnan(x)]
    return statistics.fmean(known) if known else math.nan


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 24 else f"{text[:10]}...{text[-10:]}"


def _draw(points: Sequence[Point], picture: AccuracyPicture, label: str, path: Path) -> None:
    panels = sorted({point.panel for point in points})
    # What is the same everywhere need not be said in every line of the legend.
    points = _without_shared_words(points)
    colours = sorted({point.colour for point in points}, key=_natural)
    marks = sorted({point.mark for point in points})
    lines = [(c, m) for c in colours for m in marks if (c, m) in {p[1:3] for p in points}]
    styles = {line: _style(line, colours, marks) for line in lines}
    width = max(_MIN_INCHES, _PANEL_INCHES[0] * len(panels))
    longest = max(len(_name(line, marks)) for line in lines)
    columns = max(1, int(width * _CHARACTERS_PER_INCH // (longest + 8)))
    rows = -(-len(lines) // columns)
    figure = blank_figure(width, _PANEL_INCHES[1] + 0.25 * rows)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(grid, panels, strict=True):
        shown = [point for point in points if point.panel == panel]
        for line, style in styles.items():
            own = [point for point in shown if point[1:3] == line]
            _draw_line(axes, own, picture.joined, style)
        axes.set(title=panel, xlabel=picture.label)
        place_ticks(axes, picture.name, [point.x for point in shown if point.x is not None])
    grid[0].set_ylabel(label)
    placed = {point[1:3] for point in points if point.x is not None}
    handles = [
        _handle(_name(line, marks), styles[line], line in placed, picture.joined) for line in lines
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
    figure.suptitle(f"Accuracy against {picture.name}")
    with replaced(path) as partial:
        figure.savefig(partial, format="png")


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a key that puts 20 clients before 100."""
    parts = re.split(r"(\d+)", text.replace(",", ""))
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _name(line: tuple[str, str], marks: Sequence[str]) -> str:
    return f"{line[0]}, {line[1]}" if len(marks) > 1 else line[0]


def _without_shared_words(points: Sequence[Point]) -> list[Point]:
    words = [point.colour.split(", ") for point in points]
    shared = set.intersection(*map(set, words)) if len({p.colour for p in points}) > 1 else set()
    return [
        point._replace(colour=", ".join([own[0], *(w for w in own[1:] if w not in shared)]))
        for point, own in zip(points, words, strict=True)
    ]


def _style(line: tuple[str, str], colours: Sequence[str], marks: Sequence[str]) -> Style:
    colour, mark = colours.index(line[0]), marks.index(line[1])
    return Style(
        colour=_COLOURS[colour % len(_COLOURS)],
        # Where colours come again, the marks are others.
        mark=_MARKS[(mark + 2 * (colour // len(_COLOURS))) % len(_MARKS)],
        dashes=("-", "-.", ":")[mark % 3],
        across=((0, (7, 3)), (0, (2, 2)), (0, (7, 2, 2, 2)))[mark % 3],
    )


def _draw_line(axes: Axes, points: Sequence[Point], joined: bool, style: Style) -> None:
    placed = sorted((p.x, p.y, p.deviation) for p in points if p.x is not None)
    if placed:
        xs, ys, deviations = zip(*placed, strict=True)
        bars = [0.0 if math.isnan(value) else 100 * value for value in deviations]
        axes.errorbar(
            xs,
            [100 * y for y in ys],
            yerr=bars if any(bars) else None,
            color=style.colour,
            marker=style.mark,
            linestyle=style.dashes if joined else "none",
            markersize=5,
            linewidth=1.3,
            capsize=3,
        )
    for point in points:
        if point.x is None:
            axes.axhline(100 * point.y, color=style.colour, linestyle=style.across, linewidth=1.1)
            if not math.isnan(point.deviation):
                low, high = point.y - point.deviation, point.y + point.deviation
                axes.axhspan(100 * low, 100 * high, color=style.colour, alpha=0.12, linewidth=0)


def _handle(name: str, style: Style, placed: bool, joined: bool) -> Line2D:
    line = Line2D([], [], color=style.colour, markersize=5, label=name)
    if placed:
        line.set(linestyle=style.dashes if joined else "none", marker=style.mark)
    else:
        line.set(linestyle=style.across)
    return line
