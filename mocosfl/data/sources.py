"""Where images come from: each source fills the cache of a data set once.

If the cache is there, it is loaded and the source is not touched: no download, no decoding.

    digits         scikit-learn's 1,797 real 8 x 8 images; nothing is downloaded
    cifar10, cifar100, svhn, fashion_mnist   torchvision; Fashion-MNIST also from Debian's package
    stl10          torchvision's labelled splits (5,000 and 8,000); the 100,000 unlabelled images
                   are left out, because partitions and probes need labels
    image_folder   any tree of class folders, see `image_folder.py`
    pictures       the same trees, too large to keep decoded: no cache, see `picture_array.py`
    arrays         the user's own arrays in the cache's layout, read in place

Grey images become RGB. Images of another size than dataset.image_size are resized with Pillow's
bilinear filter (digits 8 -> 32, Fashion-MNIST 28 -> 32), pictures in folders also cropped.
"""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mocosfl.data.cache import (
    ImageArrays,
    ImageDataset,
    SplitBlocks,
    load_cache,
    read_recipe,
    write_cache,
)
from mocosfl.data.image_folder import (
    PictureList,
    PictureTree,
    blamed_on,
    decode_pictures,
    find_pictures,
)
from mocosfl.data.picture_array import PictureArray
from mocosfl.data.public_sets import (
    TORCHVISION,
    SourceImages,
    read_debian_fashion_mnist,
    read_torchvision,
    resized_blocks,
)
from mocosfl.system.randomness import numpy_generator

logger = logging.getLogger(__name__)

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
# Fixed and not the run's seed: all runs share a cache, and with it the test split.
_SPLIT_SEED = 0

_Labels = npt.NDArray[np.int64]


class DatasetSettings(Protocol):
    """What this module reads of the configuration's group `dataset`."""

    @property
    def name(self) -> str:
        """Folder of the cache below `data_dir`."""

    @property
    def source(self) -> str:
        """One of `SOURCES`."""

    @property
    def path(self) -> str | None:
        """Root of an image folder, or the folder of the user's arrays."""

    @property
    def image_size(self) -> int:
        """Height and width of the images, in pixels."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def download(self) -> bool:
        """Whether torchvision may fetch what is missing."""

    @property
    def test_fraction(self) -> float:
        """In [0, 1): part of the images kept for testing where the source has no test split."""

    @property
    def num_workers(self) -> int:
        """Threads that decode pictures, at least 1."""


SOURCES = ("digits", *TORCHVISION, "image_folder", "pictures", "arrays")


def load_dataset(settings: DatasetSettings, data_dir: Path) -> ImageDataset:
    """Load a data set from its cache, which is filled from the source first if it is not there.

    Args:
        settings: the configuration's group `dataset`, valid.
        data_dir: folder of all caches.

    Raises:
        FileNotFoundError: neither the cache nor the source's files are there.
        ValueError: a setting does not fit the source or the cache, or a file is broken.
    """
    if settings.source == "pictures":
        return _list_pictures(settings)
    if settings.source == "arrays":
        folder = _source_path(settings)
    else:
        folder = data_dir / settings.name
        if not _is_filled(folder):
            with _locked(data_dir, settings.source):
                if not _is_filled(folder):
                    _fill(settings, folder)
        _check_recipe(settings, folder)
    return load_cache(folder, settings.image_size, num_classes=settings.num_classes)


def _source_path(settings: DatasetSettings) -> Path:
    assert settings.path  # a rule of `validate`
    path = _absolute(settings.path)
    if not path.is_dir():
        raise FileNotFoundError(
            f"dataset.path={settings.path}: no such folder; dataset.source={settings.source} "
            "reads its images there; put them there, or set dataset.path=<folder>"
        )
    return path


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


@contextmanager
def _locked(data_dir: Path, source: str) -> Iterator[None]:
    """Let one process at a time fill from a source; the others wait, then find the cache."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = (data_dir / f".{source}.lock").open("w")
    except OSError as error:
        raise ValueError(
            f"data_dir={data_dir}: can't be written ({error}); choose another data_dir"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            # Some network file systems have no locks. The cache is atomic all the same.
            logger.warning("%s can't be locked (%s); filling without", file.name, error)
        yield


def _recipe(settings: DatasetSettings) -> dict[str, object]:
    recipe: dict[str, object] = {"source": settings.source, "image_size": settings.image_size}
    if settings.source in ("digits", "image_folder"):
        recipe["test_fraction"] = settings.test_fraction
    if settings.source == "image_folder":
        # Without the check that it exists: a whole cache serves without its source.
        recipe["path"] = str(_absolute(settings.path or ""))
    return recipe


def _absolute(path: str) -> Path:
    return Path(path).expanduser().resolve()


def _check_recipe(settings: DatasetSettings, folder: Path) -> None:
    """Refuse a cache that was made from something else under the same name."""
    made_from = read_recipe(folder)
    if made_from is None:
        return
    for key, value in _recipe(settings).items():
        if made_from.get(key) != value:
            raise ValueError(
                f"dataset.{key}={value}: the cache {folder} was made with {made_from.get(key)}; "
                f"choose another dataset.name than {settings.name}, or delete the folder"
            )


@blamed_on("dataset.path")  # pictures are decoded while they are written
def _fill(settings: DatasetSettings, folder: Path) -> None:
    logger.info("filling %s from %s", folder, settings.source)
    if settings.source == "digits":
        images = _read_digits(settings)
    elif settings.source == "image_folder":
        images = _read_image_folder(settings)
    elif settings.source == "fashion_mnist" and DEBIAN_FASHION_MNIST.is_dir():
        images = read_debian_fashion_mnist(DEBIAN_FASHION_MNIST, settings.image_size)
    else:
        images = _read_torchvision(settings, folder)
    _check_num_classes(settings, images.classes)
    splits = {"train": images.train}
    if images.test is not None:
        splits["test"] = images.test
    write_cache(folder, splits, classes=images.classes, recipe=_recipe(settings))


def _read_digits(settings: DatasetSettings) -> SourceImages:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Pixels are counts 0..16 of an 8 x 8 reduction.
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    size = settings.image_size
    train, test = stratified_split(labels, settings.test_fraction)
    return SourceImages(
        SplitBlocks(resized_blocks(images[train], size), labels[train]),
        SplitBlocks(resized_blocks(images[test], size), labels[test]) if len(test) else None,
        tuple(str(digit) for digit in range(10)),
    )


def _check_num_classes(settings: DatasetSettings, classes: tuple[str, ...]) -> None:
    if len(classes) != settings.num_classes:
        raise ValueError(
            f"dataset.num_classes={settings.num_classes}: dataset.source={settings.source} has "
            f"{len(classes)} classes; set dataset.num_classes={len(classes)}"
        )


def _read_image_folder(settings: DatasetSettings) -> SourceImages:
    train, test, classes = _picture_tree(settings)

    def decoded(split: PictureList) -> SplitBlocks:
        return SplitBlocks(decode_pictures(split.files, settings.image_size), split.labels)

    return SourceImages(decoded(train), None if test is None else decoded(test), classes)


def _list_pictures(settings: DatasetSettings) -> ImageDataset:
    train, test, classes = _picture_tree(settings)
    _check_num_classes(settings, classes)

    def listed(split: PictureList) -> ImageArrays:
        size, threads = settings.image_size, settings.num_workers
        return ImageArrays(PictureArray(split.files, size, num_workers=threads), split.labels)

    return ImageDataset(listed(train), None if test is None else listed(test), classes)


@blamed_on("dataset.path")
def _picture_tree(settings: DatasetSettings) -> PictureTree:
    """List the pictures; a tree without a test split gives a fraction of its images."""
    tree = find_pictures(_source_path(settings))
    if tree.test is not None:
        return tree
    files, labels = tree.train
    train, test = (
        PictureList([files[row] for row in rows], labels[rows])
        for rows in stratified_split(labels, settings.test_fraction)
    )
    return PictureTree(train, test if test.files else None, tree.classes)


def _read_torchvision(settings: DatasetSettings, folder: Path) -> SourceImages:
    raw = folder.parent / "raw"
    try:
        return read_torchvision(
            settings.source, raw, image_size=settings.image_size, download=settings.download
        )
    except FileNotFoundError as error:
        shape = f"(N, {settings.image_size}, {settings.image_size}, 3)"
        raise FileNotFoundError(
            f"dataset.source={settings.source}: there is no cache {folder}, and {error}. Either "
            f"set dataset.download=true (now {settings.download}) on a machine with network, or "
            f"put the original files there: {raw / TORCHVISION[settings.source].files}, or put "
            f"arrays there: {folder}/train_images.npy (uint8, {shape}), train_labels.npy (int64, "
            "(N,)), and test_images.npy, test_labels.npy likewise"
        ) from error


def stratified_split(labels: _Labels, test_fraction: float) -> tuple[_Labels, _Labels]:
    """Split rows so that every class gives the same part of its images, by a fixed seed.

    Args:
        labels: (N,).
        test_fraction: in [0, 1); 0 leaves the test split empty.

    Returns:
        Row numbers of training and test images, each in ascending order. A class keeps at least
        one training image, and gives at least one test image if it has two.
    """
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels) if test_fraction > 0 else ():
        rows = np.flatnonzero(labels == label)
        num_test = min(max(round(len(rows) * test_fraction), 1), len(rows) - 1)
        generator = numpy_generator(_SPLIT_SEED, "test split", int(label))
        is_test[generator.permutation(rows)[:num_test]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)
