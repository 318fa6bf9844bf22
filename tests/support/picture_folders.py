"""Folders of real pictures: scikit-learn's digits as PNG files."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write_digits(folder: Path, number: int, *, flat: bool = False) -> list[str]:
    """Write the first digits into class folders of their numbers; returns their sorted names."""
    digits = load_digits()
    names = []
    for index in range(number):
        name = f"{index:03d}.png" if flat else f"{digits.target[index]}/{index:03d}.png"
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[index] * 15.9).astype(np.uint8)).resize((40, 32)).save(file)
        names.append(name)
    return sorted(names)
