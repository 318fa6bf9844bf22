"""Ticks of the pictures of a sweep: each axis tells its points apart."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

_LOG_FROM = {
    "clients": 8,
    "bytes": 1.5,
}  # largest over smallest: from there the axis is logarithmic
_MAX_TICKS = 12
_NARROW = 4  # largest over smallest bytes below which a logarithmic axis is marked by hand
_ALIKE = 1.001  # largest over smallest bytes below which they count as one place


def place_ticks(axes: Axes, name: str, values: Sequence[float]) -> None:
    """Choose scale and ticks of the x axis, and dress the panel.

    Args:
        axes: of the panel.
        name: of what is on the x axis: clients, cut or bytes.
        values: above 0, where the points are; none: all are lines across.
    """
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(y=0.12)
    if not values:
        axes.set_xticks([])
        return
    places = sorted(set(values))
    low, high = places[0], places[-1]
    if high / low >= _LOG_FROM.get(name, math.inf):
        axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:,.4g}")
    )
    if name == "bytes":
        _bytes_ticks(axes, low, high)
        return
    if len(places) <= _MAX_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(places))
    if len(places) == 1:  # would be scaled to nothing
        axes.set_xlim(low * 0.5, low * 1.5)


def _bytes_ticks(axes: Axes, low: float, high: float) -> None:
    """Choose limits and ticks that tell points apart."""
    if high / low < _ALIKE:
        axes.xaxis.set_major_locator(FixedLocator([low]))
        axes.set_xlim(low * 0.5, high * 1.5)
    elif high / low < _LOG_FROM["bytes"]:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.7g}"))
    elif high / low < _NARROW:  # may hold no round number
        axes.xaxis.set_major_locator(FixedLocator([low, high]))
        axes.set_xlim(low / 2, high * 2)
    elif high / low < 1000:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
