"""Features of a folder of pictures, of any number: neither pixels nor features stay in memory.

Legend: N pictures, F features, S pixels.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl.data.image_folder import SUFFIXES, blamed_on, decode_picture, walk_pictures
from mocosfl.encoders.image_encoder import ImageEncoder
from mocosfl.system.files import replaced_file

logger = logging.getLogger(__name__)

_SPLITS = ("train", "test", "val")  # folders above the class folders, where there are any
_TOLD_EVERY_SECONDS = 10.0
_MAX_LISTED = 20  # unreadable pictures in a message
_FLOATS = "<f4"  # as numpy writes float32


class PictureFolder(NamedTuple):
    """The pictures below a folder."""

    path: Path
    files: list[Path]  # sorted
    num_others: int  # files that are no pictures by their names

    def relative(self, file: Path) -> str:
        """Return a picture's place below the folder, with forward slashes."""
        return printable(file.relative_to(self.path).as_posix())

    def class_of(self, file: Path) -> str:
        """Return the class folder of a picture, "" where it lies in none.

        It is the first folder, or the second in a tree of `train`, `test` and `val`.
        """
        *folders, _ = file.relative_to(self.path).parts
        if folders and folders[0] in _SPLITS and (self.path / _SPLITS[0]).is_dir():
            folders = folders[1:]
        return printable(folders[0]) if folders else ""


def printable(text: str) -> str:
    r"""Write the bytes of file names that are no UTF-8 as \x.., so that a text can be printed."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


class Unreadable(NamedTuple):
    """A picture that can't be read, and why."""

    file: Path
    reason: str


def list_pictures(path: Path) -> PictureFolder:
    """List the pictures below a folder, at any depth, by their names.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no pictures, or a folder in it can't be read.
    """
    if not path.is_dir():
        what = "is a file, name its folder" if path.exists() else "no such folder"
        raise FileNotFoundError(f"images={path}: {what}; pictures may lie in it at any depth")
    others: list[Path] = []
    with blamed_on(f"images={path}"):
        files = sorted(walk_pictures(path, others))
    if not files:
        raise ValueError(
            f"images={path}: holds no pictures by their names ({', '.join(sorted(SUFFIXES))}); "
            "name a folder that does"
        )
    return PictureFolder(path, files, len(others))


def write_features(
    encoder: ImageEncoder,
    files: list[Path],
    out: Path,
    *,
    batch_size: int,
    num_workers: int,
    skip_unreadable: bool,
) -> tuple[list[Path], list[Unreadable]]:
    """Run an encoder over pictures and write the features as a NumPy array (N, F) float32.

    Args:
        encoder: on the device that is to run it.
        files: of the pictures, at least one.
        out: the `.npy` file to write; it is replaced when all is done.
        batch_size: pictures a forward pass.
        num_workers: threads that decode pictures.
        skip_unreadable: leave out pictures that can't be read.

    Returns:
        The pictures of the rows, and those left out.

    Raises:
        ValueError: a picture can't be read and none is to be left out, or none can be read, or
            features are not finite.
    """
    read: list[Path] = []
    unreadable: list[Unreadable] = []
    progress = _Progress(len(files))
    with replaced_file(out) as file:
        _write_header(file, len(files), encoder.num_features)
        blocks = _decoded(files, encoder.image_size, batch_size, num_workers)
        for names, pixels, failed in blocks:
            unreadable += failed
            progress.tell(len(names) + len(failed))
            # When the features aren't wanted any more the rest is only looked at.
            if names and (skip_unreadable or not unreadable):
                _features(encoder, pixels, names).tofile(file)
                read += names
        if unreadable and not (skip_unreadable and read):
            raise ValueError(_refusal(unreadable, len(files)))
        file.seek(0)
        _write_header(file, len(read), encoder.num_features)
    return read, unreadable


_Decoded = tuple[list[Path], npt.NDArray[np.uint8], list[Unreadable]]


def _decoded(files: list[Path], size: int, block: int, num_workers: int) -> Iterator[_Decoded]:
    """Yield blocks of pictures (n, S, S, 3); the next two are decoded meanwhile."""
    pending: deque[list[tuple[Path, Future[npt.NDArray[np.uint8]]]]] = deque()
    with ThreadPoolExecutor(num_workers) as threads:
        for start in range(0, len(files), block):
            names = files[start : start + block]
            pending.append([(name, threads.submit(decode_picture, name, size)) for name in names])
            if len(pending) > 2:
                yield _collected(pending.popleft(), size)
        while pending:
            yield _collected(pending.popleft(), size)


def _collected(block: list[tuple[Path, Future[npt.NDArray[np.uint8]]]], size: int) -> _Decoded:
    names, pixels, failed = list[Path](), list[npt.NDArray[np.uint8]](), list[Unreadable]()
    for name, picture in block:
        try:
            pixels.append(picture.result())
            names.append(name)
        except ValueError as error:
            # Pillow and Python quote the name, with escapes of their own.
            reason = str(error.__cause__ or error).replace(repr(str(name))[1:-1], str(name))
            failed.append(Unreadable(name, reason))
    empty = np.empty((0, size, size, 3), np.uint8)
    return names, np.stack(pixels) if pixels else empty, failed


def _features(
    encoder: ImageEncoder, pixels: npt.NDArray[np.uint8], names: list[Path]
) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        found: Tensor = encoder(encoder.scaled(pixels)).float().cpu()
    if not bool(found.isfinite().all()):
        row = int((~found.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(
            "checkpoint: its encoder gives features that are not finite "
            f"({printable(str(names[row]))}); it is of a run that has diverged, take another "
            "checkpoint"
        )
    return found.numpy().astype(_FLOATS)


def _write_header(file: BinaryIO, num_rows: int, num_features: int) -> None:
    """Write the head of a .npy file; NumPy leaves room in it for any number of rows."""
    shape = (num_rows, num_features)
    header = {"descr": _FLOATS, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _refusal(unreadable: list[Unreadable], num_files: int) -> str:
    shown = [printable(f"  {file}: {reason}") for file, reason in unreadable[:_MAX_LISTED]]
    if len(unreadable) > _MAX_LISTED:
        shown.append(f"  and {len(unreadable) - _MAX_LISTED:,} more")
    return "\n".join(
        [
            f"images: {len(unreadable):,} of {num_files:,} pictures can't be read; nothing is "
            "written. Repair or remove them, or leave them out with skip_unreadable=true",
            *shown,
        ]
    )


class _Progress:
    """Says now and then how many pictures are done."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.start = self.told = time.monotonic()

    def tell(self, more: int) -> None:
        self.done += more
        now = time.monotonic()
        if now - self.told >= _TOLD_EVERY_SECONDS and self.done < self.total:
            self.told = now
            rate = self.done / (now - self.start)
            logger.info("%s of %s pictures, %.0f a second", *_thousands(self), rate)


def _thousands(progress: _Progress) -> tuple[str, str]:
    return f"{progress.done:,}", f"{progress.total:,}"


def num_threads(num_workers: int | None) -> int:
    """Return how many threads decode pictures: as asked for, or a thread a core."""
    return num_workers or os.cpu_count() or 1
