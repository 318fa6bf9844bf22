"""What all pictures share: size, colours, resolution."""

from matplotlib.figure import Figure

COLOURS = ("#3569a8", "#e08a2c", "#4a9b62", "#a2508f", "#7a7a7a")
MAX_NAMED_CLASSES = 24  # class names beside a heat map or under bars
_DOTS_PER_INCH = 110


def blank_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches."""
    return Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained")
