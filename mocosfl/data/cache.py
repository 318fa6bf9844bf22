"""The data set cache: a folder of arrays, memory-mapped when read, filled at most once.

    <data_dir>/<name>/train_images.npy   uint8, (N, H, W, 3), RGB
                      train_labels.npy   int64, (N,), in [0, num_classes)
                      test_images.npy    likewise; both test files may be missing
                      test_labels.npy
                      classes.json       list of class names; optional
                      source.json        what the cache was made from; only if we wrote it

A cache is written into a hidden folder beside its place and renamed once complete, so that a
kill at any moment leaves either no cache or a whole one.

Legend: N images of a split, H = W = dataset.image_size.
"""

import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mocosfl.system.files import whole_folder

logger = logging.getLogger(__name__)

_CONVERSIONS = {
    "images": "images must be uint8 in 0..255; floats in [0, 1] become that by "
    "(images * 255).round().astype(np.uint8)",
    "labels": "labels must be int64; save labels.astype(np.int64)",
}


class Images(Protocol):
    """What images are read through: arrays (N, H, W, 3) uint8, or pictures decoded when asked.

    `np.asarray(images[rows])`, with a slice or an array of numbers, gives pixels in either case.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels: uint8."""

    @property
    def ndim(self) -> int:
        """Number of dimensions: 4."""

    def __len__(self) -> int:
        """Number of images N."""

    def __getitem__(self, rows: Any, /) -> "Images":
        """Return some images, given as a slice or an array of numbers."""

    def __array__(self) -> npt.NDArray[Any]:
        """Return the pixels."""


class ImageArrays(NamedTuple):
    """One split: `images` (N, H, W, 3) uint8, a read-only memory map or pictures; `labels` (N,)."""

    images: Images
    labels: npt.NDArray[np.int64]


class ImageDataset(NamedTuple):
    """A data set; `test` is None where only the training split is at hand."""

    train: ImageArrays
    test: ImageArrays | None
    classes: tuple[str, ...]


class SplitBlocks(NamedTuple):
    """A split on its way to disk: `images` in blocks of (n, H, W, 3) uint8, `labels` (N,)."""

    images: Iterable[npt.NDArray[np.uint8]]
    labels: npt.NDArray[np.int64]


def load_cache(folder: Path, image_size: int, *, num_classes: int) -> ImageDataset:
    """Memory-map and check the arrays of a cache folder.

    Args:
        folder: the cache, `<data_dir>/<name>`, or any folder of the same layout.
        image_size: height and width that the images must have, in pixels.
        num_classes: number of classes; every label must be below it.

    Raises:
        FileNotFoundError: a file of the training split, or one of a pair, is missing.
        ValueError: an array is truncated or has another type, shape, size or label range.
    """
    train = _load_split(folder, "train", image_size=image_size, num_classes=num_classes)
    has_test = any((folder / f"test_{part}.npy").exists() for part in ("images", "labels"))
    test = None
    if has_test:
        test = _load_split(folder, "test", image_size=image_size, num_classes=num_classes)
    return ImageDataset(train, test, _load_classes(folder, num_classes))


def write_cache(
    folder: Path,
    splits: Mapping[str, ImageArrays | SplitBlocks],
    *,
    classes: tuple[str, ...],
    recipe: Mapping[str, object],
) -> None:
    """Write a cache atomically: whole, or not at all.

    Where another process has finished the same folder meanwhile, its cache stays, ours is dropped.

    Args:
        folder: the cache, which must not exist yet or be empty.
        splits: "train" and, if there is one, "test".
        classes: class names, in the order of the labels.
        recipe: what the cache is made from, kept as `source.json`.

    Raises:
        ValueError: `data_dir` can't be written.
    """
    try:
        with whole_folder(folder) as partial:
            for name, split in splits.items():
                _write_split(partial, name, split)
            for name, content in (("classes", list(classes)), ("source", dict(recipe))):
                (partial / f"{name}.json").write_text(json.dumps(content, indent=1))
    except OSError as error:
        if folder.is_dir() and any(folder.iterdir()):
            logger.info("%s was filled by another process meanwhile; ours is dropped", folder)
            return
        raise ValueError(
            f"data_dir={folder.parent}: the cache {folder.name} can't be written ({error}); "
            "choose another data_dir, or free space and permissions there"
        ) from error


def read_recipe(folder: Path) -> dict[str, Any] | None:
    """Return what a cache was made from; None for a folder of arrays that we did not write."""
    path = folder / "source.json"
    return _read_json(path, dict) if path.exists() else None


def _write_split(folder: Path, name: str, split: ImageArrays | SplitBlocks) -> None:
    blocks = split.images if isinstance(split, SplitBlocks) else [np.asarray(split.images)]
    _write_images(folder / f"{name}_images.npy", blocks, num_images=len(split.labels))
    np.save(folder / f"{name}_labels.npy", np.asarray(split.labels, dtype=np.int64))


def _write_images(path: Path, blocks: Iterable[npt.NDArray[np.uint8]], *, num_images: int) -> None:
    # Streamed, not memory-mapped: a full disk is then an OSError, where a map gets SIGBUS.
    written = 0
    with path.open("wb") as file:
        for block in blocks:
            if written == 0:
                shape = (num_images, *block.shape[1:])
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(block).data)
            written += len(block)
    assert written == num_images, (path, written, num_images)


def _load_split(folder: Path, split: str, *, image_size: int, num_classes: int) -> ImageArrays:
    images = _map_array(folder / f"{split}_images.npy", np.dtype(np.uint8))
    labels_file = folder / f"{split}_labels.npy"
    labels = np.array(_map_array(labels_file, np.dtype(np.int64)))
    _check_image_shape(folder / f"{split}_images.npy", images.shape, image_size)
    if labels.ndim != 1 or len(labels) != len(images):
        raise ValueError(
            f"{labels_file}: shape {labels.shape} beside {len(images)} images; labels must be (N,) "
            f"with one label an image; {_way_out(labels_file)}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"dataset.num_classes={num_classes}: {labels_file} holds labels {labels.min()} to "
            f"{labels.max()}; set dataset.num_classes to the number of classes, or number the "
            "classes from 0"
        )
    return ImageArrays(images, labels)


def _map_array(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Memory-map a .npy file after comparing its header with its size on disk."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file; a data set folder holds train_images.npy (uint8, (N, H, W, 3)) "
            "and train_labels.npy (int64, (N,)), and test_images.npy with test_labels.npy if it "
            f"has a test split; {_way_out(path)}"
        )
    shape, found = _read_header(path)
    if found != dtype:
        hint = _CONVERSIONS["images" if dtype == np.uint8 else "labels"]
        raise ValueError(f"{path}: its type is {found}; {hint}")
    if 0 in shape:
        raise ValueError(f"{path}: shape {shape} holds no images; {_way_out(path)}")
    array: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    return array


def _read_header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    # numpy maps a truncated file with an error that names neither file nor sizes.
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(file)
            expected = file.tell() + math.prod(shape) * dtype.itemsize
    except ValueError as error:
        raise ValueError(f"{path}: not a whole .npy file ({error}); {_way_out(path)}") from error
    found = path.stat().st_size
    if found < expected:
        raise ValueError(
            f"{path}: truncated, {found} of {expected} bytes are there; {_way_out(path)}"
        )
    return shape, dtype


def _check_image_shape(path: Path, shape: tuple[int, ...], image_size: int) -> None:
    if len(shape) == 3 or (len(shape) == 4 and shape[-1] == 1):
        hint = "grey images: save np.repeat(images.reshape(N, H, W, 1), 3, axis=3)"
    elif len(shape) == 4 and shape[1] == 3 and shape[-1] != 3:
        hint = "channels must come last: save images.transpose(0, 2, 3, 1)"
    elif len(shape) != 4 or shape[-1] != 3:
        hint = "save RGB images in that shape"
    elif shape[1] != shape[2]:
        hint = "images must be square: crop or resize them first"
    elif shape[1] != image_size:
        raise ValueError(
            f"dataset.image_size={image_size}: the images of {path} are {shape[1]} x {shape[2]}; "
            f"set dataset.image_size={shape[1]}, or another dataset.name to make a new cache"
        )
    else:
        return
    raise ValueError(f"{path}: shape {shape} where (N, H, W, 3) is needed; {hint}")


def _load_classes(folder: Path, num_classes: int) -> tuple[str, ...]:
    path = folder / "classes.json"
    if not path.exists():
        return tuple(str(index) for index in range(num_classes))
    names = _read_json(path, list)
    if len(names) != num_classes:
        raise ValueError(
            f"dataset.num_classes={num_classes}: {path} names {len(names)} classes; "
            f"set dataset.num_classes={len(names)}"
        )
    return tuple(str(name) for name in names)


def _read_json(path: Path, kind: type[Any]) -> Any:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not readable JSON ({error}); {_way_out(path)}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path}: a JSON {kind.__name__} is needed there; {_way_out(path)}")
    return content


def _way_out(path: Path) -> str:
    # Never tell users to delete a folder of their own arrays.
    if (path.parent / "source.json").exists():
        return f"delete the folder {path.parent} and start again: it is then filled anew"
    return "write the file again (np.save), or choose another dataset.name or dataset.path"
