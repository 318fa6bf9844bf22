"""Small real pictures: crops of the two photographs that scikit-learn brings along."""

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn import functional as F

MIN_TEXTURE = 0.1  # standard deviation within 8 x 8 pixels; a piece of the sky shows nothing
_PATCH = 8


def crops(number: int, size: int, *, seed: int) -> Tensor:
    """Return textured crops (number, 3, size, size) in [0, 1], float32."""
    photographs = load_sample_images().images
    generator = np.random.default_rng(seed)
    found: list[Tensor] = []
    while len(found) < number:
        photograph = photographs[generator.integers(len(photographs))]
        top, left = (int(generator.integers(side - size + 1)) for side in photograph.shape[:2])
        pixels = photograph[top : top + size, left : left + size]
        crop = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        if _texture(crop) > MIN_TEXTURE:
            found.append(crop)
    return torch.stack(found)


def _texture(crop: Tensor) -> float:
    mean, square = F.avg_pool2d(crop, _PATCH), F.avg_pool2d(crop * crop, _PATCH)
    return float((square - mean * mean).clamp_min(0).sqrt().mean())
