"""Writing files safely."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO


def check_writable(folder: Path, key: str = "output_dir") -> None:
    """Check that a folder can be made and written to.

    Args:
        folder: to write into.
        key: what named it.

    Raises:
        ValueError: it cannot.
    """
    folder = folder.absolute()
    try:
        nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(f"{nearest} is a file")
        # By trying: permission bits tell nothing of read-only and special file systems.
        with TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ValueError(
            f"{key}: cannot write to {folder} ({error}); choose another, as in {key}=runs"
        ) from error


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a place to write a file to, which then takes the place of the one that is there.

    A kill or a full disk leaves the old file or the new one, never a part of it. The new one is on
    the disk before it takes its name. Nothing is replaced where the block raises.

    Args:
        path: of the file, the only one that writes it; its folder is made.

    Yields:
        The place to write to, beside it: its suffix is `.partial`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of the one that is there; see `replaced`."""
    with replaced(path) as partial, partial.open("wb") as file:
        yield file


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file in the place of the one that is there; see `replaced`.

    Args:
        path: of the file.
        content: text is written as UTF-8.
    """
    with replaced_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that is not there yet, and wait until it is on the disk.

    Args:
        path: of the file; its folder is there.
        content: of the file.
        mode: that it has from its first byte on.

    Raises:
        FileExistsError: it is there already.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


@contextmanager
def whole_folder(folder: Path, *, mode: int = 0o777) -> Iterator[Path]:
    """Give a folder to fill, which then takes its name: it is there whole, or not at all.

    Args:
        folder: must not be there yet, or be empty; several processes may fill it at once.
        mode: of the folder.

    Yields:
        The folder to fill, beside it.

    Raises:
        OSError: the folder can't be written, or another process has filled it meanwhile.
    """
    # The process id alone is no unique name: in containers it is the same after every restart.
    unique = f"{os.getpid()}-{secrets.token_hex(4)}"
    partial = folder.parent / f".{folder.name}.partial-{unique}"
    try:
        partial.mkdir(parents=True, mode=mode)
        yield partial
        for place in (*partial.rglob("*"), partial):
            _sync_folder(place) if place.is_dir() else sync(place)
        partial.rename(folder)
        _sync_folder(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder outlast a power cut, where its file system can do so."""
    with suppress(OSError):  # some network file systems can't sync a folder
        sync(folder)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
