"""What all pictures share: size, colours, resolution."""

from typing import Literal

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

COLOURS = ("#3569a8", "#e08a2c", "#4a9b62", "#a2508f", "#7a7a7a")
MAX_NAMED_CLASSES = 24  # class names beside a heat map or under bars
THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")
_DOTS_PER_INCH = 110
_SMALL_PIXELS = 100  # below this an image's pixels are shown as squares, not blurred


def blank_figure(
    width: float, height: float, *, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Return an empty figure.

    Args:
        width: in inches.
        height: in inches.
        layout: of the parts; None where the caller places them.
    """
    return Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout=layout)


def interpolation(num_pixels: int) -> str:
    """Return how matplotlib draws an image of so many pixels a side."""
    return "nearest" if num_pixels < _SMALL_PIXELS else "antialiased"
