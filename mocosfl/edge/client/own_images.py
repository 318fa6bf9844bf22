"""The images that a client holds: an array on disk, or pictures of any format and size.

    <folder>/images.npy   uint8, (n, H, W, 3), RGB, square; read in place
    <folder>/**           else: every picture below the folder, in the order of their paths

Pictures are decoded as a simulation decodes `dataset=image_folder`, when they are drawn. No torch.

Legend: n images that the client holds, m images that are read at a time.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mocosfl.data.image_folder import (
    SUFFIXES,
    blamed_on,
    decode_picture,
    walk_pictures,
    warn_of_others,
)

logger = logging.getLogger(__name__)

ARRAY_NAME = "images.npy"

_Ints = npt.NDArray[np.int64]
_Pixels = npt.NDArray[np.uint8]


class OwnImages:
    """The images of one client, read when they are drawn; `fit` first."""

    def __init__(self, folder: Path) -> None:
        """List what is there.

        Args:
            folder: with images.npy or pictures, see above.

        Raises:
            FileNotFoundError: there is no such folder, or nothing in it.
            ValueError: images.npy is no array of square images, or a folder can't be read.
        """
        if not folder.is_dir():
            raise FileNotFoundError(
                f"--data {folder}: no such folder; name the one that holds this client's images"
            )
        self.folder = folder
        self.image_size = 0  # pixels; unknown before `fit`
        self._array: _Pixels | None = None
        self._files: Sequence[Path] = ()
        if (folder / ARRAY_NAME).exists():
            self._array = _map_images(folder / ARRAY_NAME)
        else:
            self._files = _list_pictures(folder)
        logger.info("%d images in %s", len(self), folder)

    def __len__(self) -> int:
        """Return n, at least 1."""
        return len(self._files) if self._array is None else len(self._array)

    def fit(self, image_size: int) -> None:
        """Say how large the images must be.

        Args:
            image_size: side of the square images, pixels.

        Raises:
            ValueError: images.npy has another size; pictures are resized when they are decoded.
        """
        if self._array is not None and self._array.shape[1] != image_size:
            side = self._array.shape[1]
            raise ValueError(
                f"--data {self.folder}: {ARRAY_NAME} holds images of {side} x {side} pixels and "
                f"the server trains on {image_size} x {image_size}; resize them, or give pictures"
            )
        self.image_size = image_size

    def read(self, indices: _Ints) -> _Pixels:
        """Return images.

        Args:
            indices: (m,), from 0 to n - 1.

        Returns:
            (m, image_size, image_size, 3) uint8, RGB.

        Raises:
            ValueError: a picture can't be read; the message names it.
        """
        assert self.image_size, "fit comes first"
        pixels = np.empty((len(indices), self.image_size, self.image_size, 3), np.uint8)
        if self._array is not None:
            order = np.argsort(indices)  # a memory-mapped file is read from front to back
            pixels[order] = self._array[indices[order]]
            return pixels
        for row, index in enumerate(indices.tolist()):
            pixels[row] = self._decode(self._files[index])
        return pixels

    def _decode(self, file: Path) -> _Pixels:
        with blamed_on(f"--data {self.folder}"):
            return decode_picture(file, self.image_size)


def _map_images(path: Path) -> _Pixels:
    try:
        # No pickle: numpy would run what a file of objects says.
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{path}: not a whole .npy file of numbers ({error}); write it again with np.save"
        ) from error
    if images.dtype != np.uint8:
        raise ValueError(
            f"{path}: its type is {images.dtype}, and images must be uint8 in 0..255; floats in "
            "[0, 1] become that by (images * 255).round().astype(np.uint8)"
        )
    if images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(
            f"{path}: shape {images.shape} where (n, H, H, 3) is needed: square RGB images, "
            "channels last"
        )
    if 0 in images.shape:
        raise ValueError(f"{path}: shape {images.shape} holds no images; a client needs at least 1")
    mapped: _Pixels = images
    return mapped


def _list_pictures(folder: Path) -> list[Path]:
    others: list[Path] = []
    with blamed_on(f"--data {folder}"):
        files = sorted(walk_pictures(folder, others))
    if not files:
        raise FileNotFoundError(
            f"--data {folder}: holds neither {ARRAY_NAME} nor pictures "
            f"({', '.join(sorted(SUFFIXES))}); put this client's images there"
        )
    warn_of_others(others)
    return files
