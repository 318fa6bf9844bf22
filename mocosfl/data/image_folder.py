"""Pictures in class folders, of any format and size, decoded to square arrays.

Three layouts are read: `<path>/{train,test|val}/<class>/**`, `<path>/<class>/**`, and Tiny
ImageNet's, whose `val/val_annotations.txt` names the class of each picture in `val/images`. Class
names in alphabetical order number the labels; pictures may sit deeper below their class folder.
"""

import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

logger = logging.getLogger(__name__)

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
_ANNOTATIONS = "val_annotations.txt"  # a line a picture: file name, tab, class, tab, box
# A bound on the decoded pictures in memory: 512 of 224 x 224 x 3 bytes are 77 MB.
_BLOCK = 512


class PictureError(ValueError):
    """A picture, or a folder of them, that can't be read; `blamed_on` names the setting."""


@contextmanager
def blamed_on(setting: str) -> Iterator[None]:
    """Put the setting that led to a picture before what is wrong with it.

    Args:
        setting: as the user gives it, such as `dataset.path`.

    Raises:
        ValueError: a picture or a folder can't be read.
    """
    try:
        yield
    except PictureError as error:
        raise ValueError(f"{setting}: {error}") from error


class PictureList(NamedTuple):
    """The files of one split and their labels, (N,) int64."""

    files: list[Path]
    labels: npt.NDArray[np.int64]


class PictureTree(NamedTuple):
    """A tree of pictures; `test` is None where the tree has no test split."""

    train: PictureList
    test: PictureList | None
    classes: tuple[str, ...]


def find_pictures(path: Path) -> PictureTree:
    """List the pictures of a tree of class folders.

    Args:
        path: `dataset.path`, an existing folder.

    Raises:
        ValueError: no class folders, a class without pictures, a test class unknown in training,
            or annotations that do not fit their pictures.
        PictureError: a folder can't be read.
    """
    train_folder = path / "train" if (path / "train").is_dir() else path
    classes = tuple(folder.name for folder in _subfolders(train_folder))
    train = _list_split(train_folder, classes)
    if train_folder != path and (path / "val" / _ANNOTATIONS).is_file():
        if (path / "test").is_dir():
            logger.info("%s is left out: the labelled test images are val's", path / "test")
        return PictureTree(train, _list_annotated(path / "val", classes), classes)
    for name in ("test", "val"):
        if train_folder != path and (path / name).is_dir():
            return PictureTree(train, _list_split(path / name, classes), classes)
    return PictureTree(train, None, classes)


def decode_pictures(files: list[Path], image_size: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Decode pictures on all cores, in blocks of (n, image_size, image_size, 3) uint8.

    Raises:
        PictureError: a picture can't be read; the message names it.
    """
    # Threads serve: Pillow lets go of the interpreter lock while it decodes and resizes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), _BLOCK):
            block = files[start : start + _BLOCK]
            yield np.stack(list(pool.map(lambda file: decode_picture(file, image_size), block)))


def decode_picture(file: Path, image_size: int) -> npt.NDArray[np.uint8]:
    """Decode one picture: shorter side resized to `image_size` (antialiased), centre cropped.

    Args:
        file: as in `open_upright`.
        image_size: height and width of the result, in pixels.

    Returns:
        (image_size, image_size, 3) uint8, RGB.

    Raises:
        PictureError: the picture can't be read.
    """
    return fit_square(open_upright(file), image_size)


def fit_square(picture: Image.Image, image_size: int) -> npt.NDArray[np.uint8]:
    """Resize the shorter side of an RGB picture and crop its centre; see `decode_picture`."""
    size = (image_size, image_size)
    square = ImageOps.fit(picture, size, method=Image.Resampling.BILINEAR)
    return np.asarray(square, dtype=np.uint8)


def open_upright(file: Path) -> Image.Image:
    """Decode a picture as RGB, turned as its EXIF data say.

    Args:
        file: a picture in any format and mode that Pillow reads, with 8 or 16 bits a channel.

    Raises:
        PictureError: the picture can't be read; the message names it.
    """
    try:
        with Image.open(file) as picture:
            return to_upright(picture)
    # Decoders raise whatever they stumble over (OSError, SyntaxError, struct.error, ...).
    except Exception as error:
        raise PictureError(
            f"the picture {file} can't be read ({error}); repair or remove the file and start again"
        ) from error


def to_upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF data say, and make it RGB.

    Raises:
        PictureError: pixels of 32 bits.
    """
    return _to_rgb(ImageOps.exif_transpose(picture))


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        # Pillow's own conversion clips 16 bits at 255, which leaves a white picture.
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise PictureError(f"32-bit pixels (mode {picture.mode}) have no known range")
    elif "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


def _list_split(folder: Path, classes: tuple[str, ...]) -> PictureList:
    found = {subfolder.name: subfolder for subfolder in _subfolders(folder)}
    if not found:
        raise ValueError(
            f"dataset.path: no class folders in {folder}; put the pictures of each class in a "
            "folder of its own"
        )
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise ValueError(
            f"dataset.path: {folder} has the class {unknown[0]}, which training has not; "
            "give both splits the same class folders, or move this split away"
        )
    files: list[Path] = []
    labels: list[int] = []
    others: list[Path] = []
    for name, subfolder in found.items():
        pictures = sorted(walk_pictures(subfolder, others))
        if not pictures:
            raise ValueError(
                f"dataset.path: the class folder {subfolder} holds no pictures "
                f"({', '.join(sorted(SUFFIXES))}); fill or remove it"
            )
        files += pictures
        labels += [classes.index(name)] * len(pictures)
    warn_of_others(others)
    return PictureList(files, np.array(labels, dtype=np.int64))


def _list_annotated(folder: Path, classes: tuple[str, ...]) -> PictureList:
    annotations = folder / _ANNOTATIONS
    numbers = {name: number for number, name in enumerate(classes)}
    files: list[Path] = []
    labels: list[int] = []
    for index, line in enumerate(annotations.read_text(errors="replace").splitlines()):
        name, label = [*line.split("\t"), ""][:2]
        if label not in numbers or not (folder / "images" / name).is_file():
            missing = f"class {label!r}" if label not in numbers else f"picture {name!r}"
            raise ValueError(
                f"dataset.path: line {index + 1} of {annotations}: there is no {missing}; each "
                "line names a picture in images/, a tab, a class of training: unpack it again"
            )
        files.append(folder / "images" / name)
        labels.append(numbers[label])
    if not files:
        raise ValueError(f"dataset.path: {annotations} is empty; unpack the data set again")
    return PictureList(files, np.array(labels, dtype=np.int64))


def walk_pictures(folder: Path, others: list[Path]) -> Iterator[Path]:
    """Yield the pictures below a folder, by their names, and append what is none to `others`.

    What begins with a dot is hidden and left out. Links to folders are followed, but no folder is
    taken twice: a link may lead back to where it lies.

    Raises:
        PictureError: a folder can't be read.
    """
    # Links wait until the real folders are done, so that a picture has the path it lies at.
    waiting, seen = deque([folder]), set[tuple[int, int]]()
    while waiting:
        for root, folders, names in os.walk(waiting.popleft(), onerror=_refuse_folder):
            status = os.stat(root)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inner = (Path(root, name) for name in folders)
            waiting += [path for path in inner if path.is_symlink()]
            for file in (Path(root, name) for name in names if not name.startswith(".")):
                if file.suffix.lower() in SUFFIXES:
                    yield file
                else:
                    others.append(file)


def warn_of_others(files: Sequence[Path]) -> None:
    """Log that files are left out which `walk_pictures` found to be no pictures."""
    if files:  # one line: Tiny ImageNet has such a file in each of its 200 classes
        more = f", like {len(files) - 1} more" if len(files) > 1 else ""
        logger.warning("%s is not a picture by its name; left out%s", files[0], more)


def _refuse_folder(error: OSError) -> NoReturn:
    raise PictureError(
        f"the folder {error.filename} can't be read ({error.strerror}); give yourself the right "
        "to read it (chmod u+rx), or move it away"
    ) from error


def _subfolders(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        _refuse_folder(error)
    return [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
