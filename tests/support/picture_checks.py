"""What every picture of a run has to be."""

from pathlib import Path

import numpy as np
from PIL import Image


def check_picture(path: Path, *, min_colours: int = 20) -> tuple[int, int]:
    """Assert that the picture is readable and not blank; give width and height in pixels."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    height, width, _ = pixels.shape
    assert 300 <= height <= 4000 and 300 <= width <= 4000
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) >= min_colours
    # Nothing is cut off at a border: the outermost pixels are background.
    border = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    assert all((line == 255).all() for line in border)
    return width, height
