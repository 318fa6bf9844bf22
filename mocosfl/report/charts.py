"""Charts of curves as SVG that stands in a page: small, without ids of its own, text as text."""

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mocosfl.report.curves import (
    Axis,
    LoggedCurve,
    LoggedCurves,
    Quantity,
    same_rates,
    smoothed,
    thinned,
    window_of,
)

COLOURS = (
    "#3569a8", "#d9730d", "#2f8f4e", "#a2508f", "#c1443c", "#5b5b5b", "#178f8f", "#8a6d3b",
    "#6a5acd", "#a88700",
)  # fmt: skip
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_INCHES = (4.7, 2.9)  # width, height; about the width of a phone
_PLACE = (0.155, 0.185, 0.815, 0.765)  # of the axes: left, bottom, width, height
_MAX_POINTS = 400  # of a line
_MAX_POINTS_IN_ALL = 4000  # of the lines in one chart
_MIN_POINTS = 60
_FEW = 30  # values up to which each has a mark
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: a tenth of the size, and can be searched
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "svg.hashsalt": "mocosfl",  # the same page each time
    "font.size": 9.5,
    "path.simplify": True,
}


class Line(NamedTuple):
    """A curve in a chart."""

    label: str  # in the chart's legend; "" for none
    curve: LoggedCurve
    colour: str
    dashes: Any = "-"
    faint: bool = False  # the logged values too, behind their running mean


class Band(NamedTuple):
    """A shaded range over the values of an axis."""

    label: str
    low: LoggedCurve
    high: LoggedCurve
    colour: str


def style_of(index: int) -> tuple[str, Any]:
    """Return colour and dashes of a run by its number: 40 that differ."""
    return COLOURS[index % len(COLOURS)], _DASHES[index // len(COLOURS) % len(_DASHES)]


def draw_chart(
    quantity: Quantity, axis: Axis, lines: Sequence[Line], bands: Sequence[Band] = ()
) -> Markup:
    """Draw curves of one quantity.

    Args:
        quantity: of the y axis.
        axis: of the x axis; all curves have it.
        lines: the curves.
        bands: behind them.

    Returns:
        An `<svg>` element.
    """
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=_INCHES)
        axes = figure.add_axes(_PLACE)
        scale = 100.0 if quantity.percent else 1.0
        most = int(np.clip(_MAX_POINTS_IN_ALL // max(1, len(lines)), _MIN_POINTS, _MAX_POINTS))
        for band in bands:
            x, low = thinned(band.low.places[axis.column], band.low.values, most)
            _, high = thinned(band.high.places[axis.column], band.high.values, most)
            axes.fill_between(
                x, low * scale, high * scale, color=band.colour, alpha=0.18, lw=0, label=band.label
            )
        for line in lines:
            _draw_line(axes, line, axis, noisy=quantity.noisy, scale=scale, most=most)
        axes.set(xlabel=axis.label, ylabel=quantity.unit)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(_tick))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if bands or any(line.label for line in lines):
            axes.legend(frameon=False, fontsize=8.5)
        return _svg(figure, f"{quantity.title} over {axis.label}")


def _draw_line(axes: Any, line: Line, axis: Axis, *, noisy: bool, scale: float, most: int) -> None:
    x, y = line.curve.places[axis.column], line.curve.values * scale
    window = window_of(len(y)) if noisy else 1
    if window > 1 and line.faint:
        axes.plot(*thinned(x, y, most), color=line.colour, alpha=0.25, lw=0.8)
    shown = thinned(x, smoothed(y, window) if window > 1 else y, most)
    mark = "o" if len(y) <= _FEW else ""
    axes.plot(
        *shown, color=line.colour, ls=line.dashes, lw=1.6, marker=mark, ms=3,
        label=line.label or None,
    )  # fmt: skip


def _tick(value: float, _: object) -> str:
    """Return a short number: 50k images, 1.5M images."""
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:,g}" if abs(value) < 1000 else f"{value:,.0f}"


def _svg(figure: Figure, label: str) -> Markup:
    """Return a figure as an element without what a page has once or does not need."""
    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    # Ids of groups are the same in every chart; the page numbers those of marks and clips.
    text = re.sub(r' id="[\w.]+_\d+"', "", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'="[^"]*"', _rounded, text)
    text = re.sub(r'^<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", text)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    return Markup(re.sub(r"\n\s*", "\n", text).strip())


def _rounded(attribute: re.Match[str]) -> str:
    """Return an attribute with hundredths of a point at most, which are finer than a screen."""
    return re.sub(r"(\.\d\d)\d+", r"\1", attribute[0])


def overlay(
    quantity: Quantity, axis: Axis, runs: Sequence[LoggedCurves], styles: Sequence[tuple[str, Any]]
) -> Markup:
    """Draw one quantity of several runs, a colour a run; the page has their legend."""
    lines = [
        Line("", run[quantity.column], colour, dashes, faint=len(runs) == 1)
        for run, (colour, dashes) in zip(runs, styles, strict=True)
        if quantity.column in run
    ]
    return draw_chart(quantity, axis, lines)


def single(quantity: Quantity, axis: Axis, run: LoggedCurves) -> Markup:
    """Draw one quantity of one run: logged values behind, the divergence with its range."""
    curve, colour = run[quantity.column], COLOURS[0]
    names = ("sync/divergence_least", "sync/divergence_most")
    if quantity.column == "sync/divergence_mean" and all(name in run for name in names):
        least, most = (run[name] for name in names)
        if len(least.values) == len(most.values):
            band = Band("least to most", least, most, colour)
            return draw_chart(quantity, axis, [Line("mean", curve, colour)], [band])
    if quantity.column == "lr/server" and "lr/clients" in run and not same_rates(run):
        lines = [
            Line("server", curve, colour),
            Line("clients", run["lr/clients"], COLOURS[1], _DASHES[1]),
        ]
        return draw_chart(quantity, axis, lines)
    return draw_chart(quantity, axis, [Line("", curve, colour, faint=True)])
