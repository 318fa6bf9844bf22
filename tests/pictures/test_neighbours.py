"""The sheet of neighbours."""

from pathlib import Path

import numpy as np
from PIL import Image

from mocosfl.pictures.neighbours import SheetRow, Shown, draw_neighbours


def test_a_frame_says_whether_a_neighbour_is_of_the_querys_class(tmp_path: Path):
    grey = np.full((8, 8, 3), 128, np.uint8)
    same, other = Shown(grey, "$\\nothing$", "1.png"), Shown(grey, "b" * 40, "2.png")
    rows = [SheetRow(same, [same, other], [1.0, -0.5])]
    draw_neighbours(rows, tmp_path / "x.png", title="a\nb")
    with Image.open(tmp_path / "x.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    line = pixels[int(1.5 * 110)]  # through the middle of the pictures

    def colours(left: float) -> set[tuple[int, ...]]:
        return {tuple(map(int, pixel)) for pixel in line[int((left - 0.05) * 110) :][:12]}

    blue, orange = (0x35, 0x69, 0xA8), (0xE0, 0x8A, 0x2C)
    assert blue in colours(1.43) and orange not in colours(1.43)
    assert orange in colours(2.51) and blue not in colours(2.55)
