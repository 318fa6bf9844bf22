"""Readers of public data sets: torchvision's, and Fashion-MNIST from Debian's package.

Legend: N images of a split, H = W = the data set's own size until resized.
"""

import gzip
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from mocosfl.data.cache import SplitBlocks

# A bound on the resized images in memory: 4096 of 96 x 96 x 3 bytes are 113 MB.
_BLOCK = 4096


class SourceImages(NamedTuple):
    """What a source gives the cache."""

    train: SplitBlocks
    test: SplitBlocks | None
    classes: tuple[str, ...]


class TorchvisionSource(NamedTuple):
    """How one of torchvision's data sets is opened, and where its files lie below the root."""

    class_name: str
    takes_split_name: bool
    files: str


TORCHVISION = {
    "cifar10": TorchvisionSource("CIFAR10", False, "cifar-10-batches-py/"),
    "cifar100": TorchvisionSource("CIFAR100", False, "cifar-100-python/"),
    "svhn": TorchvisionSource("SVHN", True, "{train,test}_32x32.mat"),
    "stl10": TorchvisionSource("STL10", True, "stl10_binary/"),
    "fashion_mnist": TorchvisionSource("FashionMNIST", False, "FashionMNIST/raw/"),
}


def read_torchvision(source: str, root: Path, *, image_size: int, download: bool) -> SourceImages:
    """Read one of torchvision's data sets.

    Args:
        source: a key of `TORCHVISION`.
        root: folder of the original files.
        image_size: size to resize the images to, in pixels.
        download: whether torchvision may fetch what is missing below `root`.

    Raises:
        FileNotFoundError: the files are missing or broken and could not be fetched.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        train, test = (_open_split(source, split, root, download) for split in ("train", "test"))
    # OSError covers an unreachable network, RuntimeError torchvision's "not found or corrupted".
    except (OSError, RuntimeError, HTTPException) as error:
        raise FileNotFoundError(f"its files can't be read ({error})") from error
    return SourceImages(
        _to_blocks(train, image_size),
        _to_blocks(test, image_size),
        tuple(getattr(train, "classes", map(str, range(10)))),  # SVHN's digits have no names
    )


def _open_split(source: str, split: str, root: Path, download: bool) -> Any:
    import torchvision  # takes a second, and most sources do without

    class_name, takes_split_name, _ = TORCHVISION[source]
    which = {"split": split} if takes_split_name else {"train": split == "train"}
    return getattr(torchvision.datasets, class_name)(root=str(root), download=download, **which)


def _to_blocks(split: Any, image_size: int) -> SplitBlocks:
    images = np.asarray(split.data)
    if images.ndim == 4 and images.shape[1] == 3:  # SVHN and STL-10 keep channels first
        images = images.transpose(0, 2, 3, 1)
    labels = np.asarray(split.targets if hasattr(split, "targets") else split.labels, np.int64)
    return SplitBlocks(resized_blocks(images, image_size), labels)


def read_debian_fashion_mnist(folder: Path, image_size: int) -> SourceImages:
    """Read Fashion-MNIST from the folder of Debian's package `dataset-fashion-mnist`.

    Raises:
        ValueError: a file is missing or broken.
    """
    train, test = (
        SplitBlocks(
            resized_blocks(_read_idx(folder / f"{part}-images-idx3-ubyte.gz"), image_size),
            _read_idx(folder / f"{part}-labels-idx1-ubyte.gz").astype(np.int64),
        )
        for part in ("train", "t10k")
    )
    classes = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
    return SourceImages(train, test, classes)


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an IDX file: two zero bytes, the type (8 is uint8), the rank, the sizes, the data."""
    try:
        content = gzip.decompress(path.read_bytes())
        rank = content[3]
        shape = np.frombuffer(content, dtype=">u4", count=rank, offset=4)
        return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, IndexError, ValueError, zlib.error) as error:
        raise ValueError(
            f"dataset.source=fashion_mnist: {path} can't be read ({error}); install the package "
            "dataset-fashion-mnist again, or remove it and set dataset.download=true"
        ) from error


def resized_blocks(
    images: npt.NDArray[np.uint8], image_size: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield blocks (n, image_size, image_size, 3) of images (N, H, W) or (N, H, W, 3)."""
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        if block.shape[1:3] != (image_size, image_size):
            pictures = (Image.fromarray(np.ascontiguousarray(image)) for image in block)
            size = (image_size, image_size)
            block = np.stack(
                [
                    np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
                    for picture in pictures
                ]
            )
        yield block
