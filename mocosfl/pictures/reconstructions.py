"""Pictures of reconstructions, row under row beside the images that they are of."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mocosfl.pictures.style import blank_figure, interpolation

_INCHES_PER_IMAGE = 0.95
_LABEL_INCHES = 2.3  # to the left of each row
_TITLE_INCHES = 0.45


def draw_reconstructions(rows: Mapping[str, Tensor], path: Path, *, title: str) -> None:
    """Draw rows of images, each with its label to the left; writes one PNG file.

    Args:
        rows: label -> (R, 3, H, W) in [0, 1], of one R; about 12 look good. A label may have
            several lines.
        path: PNG file to write.
        title: above all rows.

    Raises:
        ValueError: no rows, or rows of different length.
    """
    lengths = {len(images) for images in rows.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"draw_reconstructions: rows of one length expected, got {lengths or 0}")
    (columns,) = lengths
    width = _LABEL_INCHES + columns * _INCHES_PER_IMAGE
    height = _TITLE_INCHES + len(rows) * _INCHES_PER_IMAGE
    # A title wider than the images needs room, so that few columns do not cut it off.
    width = max(width, 0.085 * len(title) + 0.2)
    figure = blank_figure(width, height, layout=None)
    grid = figure.add_gridspec(
        len(rows),
        columns,
        left=_LABEL_INCHES / width,
        right=(_LABEL_INCHES + columns * _INCHES_PER_IMAGE) / width - 0.005,
        bottom=0.01,
        top=1 - _TITLE_INCHES / height,
        wspace=0.05,
        hspace=0.05,
    )
    figure.text(0.01, 1 - 0.25 / height, title, va="center", fontsize=11)
    for row, (label, images) in enumerate(rows.items()):
        pixels = images.detach().cpu().float().clamp(0, 1).permute(0, 2, 3, 1).numpy()
        for column in range(columns):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(pixels[column], interpolation=interpolation(pixels.shape[1]))
            axes.set_axis_off()
        middle = 1 - (_TITLE_INCHES + (row + 0.5) * _INCHES_PER_IMAGE) / height
        figure.text(0.01, middle, label, va="center", fontsize=9, linespacing=1.4)
    figure.savefig(path, format="png")
