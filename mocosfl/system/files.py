"""Writing files safely."""

import os
from pathlib import Path
from tempfile import TemporaryFile


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


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a kill leaves the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
