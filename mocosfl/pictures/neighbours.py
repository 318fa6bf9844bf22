"""A sheet of pictures, each beside those that an encoder finds most alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from mocosfl.pictures.style import blank_figure, interpolation

# Lengths in sides of a picture, which is an inch.
_GAP = 0.08
_QUERY_GAP = 0.35  # between a query and its neighbours
_LINE = 0.17  # of text under a picture
_TITLE, _LEGEND = 0.62, 0.33
_MAX_LETTERS = 14  # of a name under a picture
_MIN_WIDTH = 5.0  # of the title and the legend
_SAME, _OTHER, _PLAIN = "#3569a8", "#e08a2c", "#b0b0b0"


class Shown(NamedTuple):
    """A picture on the sheet."""

    pixels: npt.NDArray[np.uint8]  # (H, H, 3), of any size
    class_name: str  # "": none
    file_name: str  # stands below a picture without a class

    @property
    def caption(self) -> str:
        """What stands below the picture, cut where it is long."""
        name = self.class_name or self.file_name
        return name if len(name) <= _MAX_LETTERS else f"{name[: _MAX_LETTERS - 1]}…"


class SheetRow(NamedTuple):
    """A query and its neighbours, the nearest first."""

    query: Shown
    neighbours: Sequence[Shown]
    similarities: Sequence[float]  # cosines


def draw_neighbours(rows: Sequence[SheetRow], path: Path, *, title: str) -> None:
    """Draw queries, each before its neighbours with their similarities; writes one PNG file.

    Where pictures have classes, the colour of a frame says whether a neighbour's is the query's.

    Args:
        rows: at least one, of one number of neighbours.
        path: PNG file to write.
        title: above all rows; two lines.
    """
    classes = any(shown.class_name for row in rows for shown in (row.query, *row.neighbours))
    columns = len(rows[0].neighbours)
    width = max(1 + _QUERY_GAP + columns * (1 + _GAP) + 2 * _GAP, _MIN_WIDTH)
    top, step = _TITLE + (_LEGEND if classes else 0), 1 + 3 * _LINE
    height = top + len(rows) * step
    figure = blank_figure(width, height, layout=None)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    axes.text(_GAP, 0.32, title, va="center", fontsize=9.5, linespacing=1.4, parse_math=False)
    if classes:
        _legend(axes)
    for number, row in enumerate(rows):
        _draw_row(axes, row, top + number * step, classes)
    figure.savefig(path, format="png")


def _draw_row(axes: Axes, row: SheetRow, top: float, classes: bool) -> None:
    _draw_picture(axes, row.query, (_GAP, top), _PLAIN, [row.query.caption])
    for place, (shown, similarity) in enumerate(zip(row.neighbours, row.similarities, strict=True)):
        same = shown.class_name == row.query.class_name
        colour = _PLAIN if not classes else _SAME if same else _OTHER
        left = _GAP + 1 + _QUERY_GAP + place * (1 + _GAP)
        lines = [f"{similarity:.3f}", shown.caption]
        _draw_picture(axes, shown, (left, top), colour, lines)


def _draw_picture(
    axes: Axes, shown: Shown, corner: tuple[float, float], colour: str, lines: Sequence[str]
) -> None:
    left, top = corner
    axes.imshow(
        shown.pixels,
        extent=(left, left + 1, top + 1, top),
        interpolation=interpolation(len(shown.pixels)),
        aspect="auto",
    )
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=colour, linewidth=2.5))
    for number, line in enumerate(lines):
        axes.text(
            left + 0.5,
            top + 1.05 + (number + 0.5) * _LINE,
            line,
            ha="center",
            va="center",
            fontsize=8,
            parse_math=False,  # a folder's name may hold a $
        )


def _legend(axes: Axes) -> None:
    named = {"the query's class folder": _SAME, "another": _OTHER}
    patches = [Patch(fill=False, edgecolor=colour, lw=2.5, label=n) for n, colour in named.items()]
    axes.legend(
        handles=patches,
        loc="center left",
        bbox_to_anchor=(_GAP, 0.72),
        bbox_transform=axes.transData,
        ncols=2,
        frameon=False,
        fontsize=9,
        borderpad=0,
        borderaxespad=0,
    )
