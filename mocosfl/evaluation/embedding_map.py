"""A map of the test images: t-SNE of their frozen features, so that what lies close is alike.

The features are scaled to length 1 first, so that neighbours are those of the kNN. Distances over
the whole map, and the sizes of its islands, mean little; who lies beside whom does.

Legend: N test images, M of them on the map, D feature size.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.nn import functional as F

from mocosfl.config.probe import MIN_MAP_IMAGES
from mocosfl.evaluation.probes import LabelledFeatures
from mocosfl.pictures.probes import draw_embedding_map
from mocosfl.runs.evaluation_folders import ProbeFolder
from mocosfl.system.files import replaced, write_atomically

_PERPLEXITY = 30.0  # neighbours that a place looks at; the usual value
_START_STD = 1e-4  # of the places before the first step, as scikit-learn has it
_ALIKE = 1e-6  # features that differ by less are one point: a collapsed encoder


class EmbeddingMap(NamedTuple):
    """Where some test images lie."""

    indices: npt.NDArray[np.int64]  # (M,) numbers of the test images, ascending
    places: npt.NDArray[np.float32]  # (M, 2), without unit
    labels: npt.NDArray[np.int64]  # (M,)


def map_features(test: LabelledFeatures, *, num_images: int, seed: int) -> EmbeddingMap | None:
    """Lay features out in two dimensions.

    Args:
        test: of N images.
        num_images: M at most, drawn at random where there are more.
        seed: of that draw and of t-SNE.

    Returns:
        The map; None with fewer than 10 images.
    """
    # Imported here: a run's start need not wait for it.
    from sklearn.manifold import TSNE

    total = len(test.labels)
    number = min(num_images, total)
    if number < MIN_MAP_IMAGES:
        return None
    indices = np.sort(np.random.default_rng(seed).permutation(total)[:number])
    features = F.normalize(test.features.detach().cpu().float(), dim=1).numpy()[indices]
    # A third of the images is the most that scikit-learn's neighbour search can look at.
    perplexity = min(_PERPLEXITY, (number - 1) / 3)
    start = _start(features, seed)
    layout = TSNE(perplexity=perplexity, init=start, learning_rate="auto", random_state=seed)
    places = np.asarray(layout.fit_transform(features), dtype=np.float32)
    return EmbeddingMap(indices.astype(np.int64), places, test.labels.cpu().numpy()[indices])


def _start(features: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float32]:
    """Return (M, 2) places along the two principal axes; at random where all features are alike."""
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((len(features), 2)).astype(np.float32) * _START_STD
    if features.shape[1] < 2 or float(features.std(axis=0).max()) < _ALIKE:
        return noise
    places = PCA(2, svd_solver="randomized", random_state=seed).fit_transform(features)
    return np.asarray(places / places[:, 0].std() * _START_STD, dtype=np.float32)


def write_map(found: EmbeddingMap | None, classes: Sequence[str], folder: Path) -> None:
    """Write a map's picture and table; without a map, remove an earlier one's.

    Args:
        found: the map.
        classes: names by label.
        folder: for the files.
    """
    files = ProbeFolder(folder)
    picture, table = files.embedding_map, files.embedding_map_table
    if found is None:
        picture.unlink(missing_ok=True)
        table.unlink(missing_ok=True)
        return
    with replaced(picture) as partial:
        draw_embedding_map(found.places, found.labels, classes, partial)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "x", "y", "class"])
    for image, (x, y), label in zip(found.indices, found.places, found.labels, strict=True):
        writer.writerow([int(image), f"{x:.4f}", f"{y:.4f}", classes[label]])
    write_atomically(table, text.getvalue())
