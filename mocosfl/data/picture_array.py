"""Pictures on disk that are too many to keep decoded: read in threads when they are asked for.

A picture is decoded once for all its views; each view's random crop is cut from the full-size
picture in the same thread, and only the crops are kept. Colours, blur and flip follow on the
training device, as for arrays. Pillow lets go of the interpreter lock while it decodes and resizes.

Legend: V views, R pictures of a block, O output size in pixels.
"""

import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mocosfl.data.augmentation import ViewSettings, crops_from_uniforms
from mocosfl.data.image_folder import blamed_on, decode_picture, open_upright
from mocosfl.data.view_maker import ViewMaker

_Ints = npt.NDArray[np.int64]
_Pixels = npt.NDArray[np.uint8]
# The block that is asked for now, and the one behind it.
_MAX_PENDING = 2


class PictureArray:
    """Pictures read like an array (N, O, O, 3) uint8: resized, and cropped to their centre.

    Indexing is free; a picture is decoded when its pixels are asked for, as by `np.asarray`.
    """

    def __init__(
        self, files: Sequence[Path] | npt.NDArray[np.object_], image_size: int, *, num_workers: int
    ) -> None:
        """Keep the files' names.

        Args:
            files: N pictures.
            image_size: O.
            num_workers: threads that decode, at least 1.
        """
        self.files = np.asarray(files, dtype=object)
        self.image_size, self.num_workers = image_size, num_workers
        self.shape = (len(self.files), image_size, image_size, 3)
        self.dtype = np.dtype(np.uint8)
        self.ndim = 4

    def __len__(self) -> int:
        """Number of pictures N."""
        return len(self.files)

    def __getitem__(self, rows: slice | _Ints, /) -> "PictureArray":
        """Return some pictures, given as a slice or an array of numbers or truth values."""
        files = self.files[rows]
        if not isinstance(files, np.ndarray):
            raise TypeError(f"index with a slice or an array of numbers, not with {rows!r}")
        return PictureArray(files, self.image_size, num_workers=self.num_workers)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> _Pixels:
        """Decode all.

        Raises:
            ValueError: a picture can't be read; the message names it.
        """
        if copy is False:
            raise ValueError("pictures on disk have no pixels to share: they are decoded anew")
        pixels: _Pixels = np.empty(self.shape, np.uint8)
        with ThreadPoolExecutor(self.num_workers) as threads, blamed_on("dataset.path"):
            decoded = threads.map(lambda file: decode_picture(file, self.image_size), self.files)
            for row, picture in enumerate(decoded):
                pixels[row] = picture
        return pixels if dtype is None else pixels.astype(dtype)


class _Block(NamedTuple):
    """Pictures that are being cropped."""

    indices: _Ints  # (R,)
    uniforms: Tensor  # (V, R, NUM_UNIFORMS)
    crops: list[Future[_Pixels]]  # of each picture: (V, O, O, 3)

    def is_for(self, indices: _Ints, uniforms: Tensor) -> bool:
        return np.array_equal(self.indices, indices) and torch.equal(self.uniforms, uniforms)

    def cancel(self) -> None:
        for crop in self.crops:
            crop.cancel()


class PictureViewMaker(ViewMaker):
    """Makes views of pictures; see `ViewMaker`.

    Memory: V crops of each picture in at most two blocks, and a full-size picture a thread.
    """

    def __init__(
        self,
        images: PictureArray,
        settings: ViewSettings,
        *,
        mean: list[float],
        std: list[float],
        device: torch.device,
    ) -> None:
        """Keep what a view needs; the arguments are those of `ViewMaker`."""
        super().__init__(images, settings, mean=mean, std=std, device=device)
        self.files = images.files
        self._pending: deque[_Block] = deque()
        self._threads = ThreadPoolExecutor(images.num_workers, thread_name_prefix="pictures")
        # A run that stops early leaves pictures to crop, which nobody will ask for.
        weakref.finalize(self, self._threads.shutdown, wait=False, cancel_futures=True)

    def prefetch(self, indices: _Ints, uniforms: Tensor) -> None:
        """Start to decode and crop what `views` will be asked for next.

        Beyond two blocks the oldest is given up: `views` would then make it from the start.
        """
        if any(block.is_for(indices, uniforms) for block in self._pending):
            return
        if len(self._pending) == _MAX_PENDING:
            self._pending.popleft().cancel()
        self._pending.append(self._start(indices, uniforms))

    def views(self, indices: _Ints, uniforms: Tensor) -> list[Tensor]:
        """Return views (R, 3, O, O) of pictures (R,), one a row of uniforms (V, R, ...).

        Raises:
            ValueError: a picture can't be read; the message names it.
        """
        block = self._take(indices, uniforms)
        crops = np.stack([crop.result() for crop in block.crops], axis=1)  # (V, R, O, O, 3)
        return [
            self.make(self.on_device(pixels), self.parameters(numbers).uncropped(self.image_size))
            for pixels, numbers in zip(crops, uniforms, strict=True)
        ]

    def _take(self, indices: _Ints, uniforms: Tensor) -> _Block:
        """Return the block asked for; what was to come before it will not be asked for any more."""
        for place, block in enumerate(self._pending):
            if block.is_for(indices, uniforms):
                for _ in range(place):
                    self._pending.popleft().cancel()
                return self._pending.popleft()
        return self._start(indices, uniforms)

    def _start(self, indices: _Ints, uniforms: Tensor) -> _Block:
        crops = [
            self._threads.submit(_crop, self.files[index], self.settings, own, self.image_size)
            for index, own in zip(indices, uniforms.unbind(dim=1), strict=True)
        ]
        return _Block(indices, uniforms, crops)


@blamed_on("dataset.path")
def _crop(file: Path, settings: ViewSettings, uniforms: Tensor, output_size: int) -> _Pixels:
    """Decode a picture and cut a crop a row of uniforms (V, NUM_UNIFORMS): (V, O, O, 3)."""
    picture = open_upright(file)
    # Drawn here, and not for a block at once: the size is known without opening the file twice.
    # It takes 0.2 ms beside 3 ms for decoding 500 x 375 pixels and resizing two crops.
    source_size = torch.tensor([[picture.height, picture.width]])
    corners, sizes = crops_from_uniforms(settings, uniforms, source_size=source_size)
    views: _Pixels = np.empty((len(uniforms), output_size, output_size, 3), np.uint8)
    for view, (top, left), (height, width) in zip(
        views, corners.tolist(), sizes.tolist(), strict=True
    ):
        # Cut first: the resampling filter must not see what lies around the crop.
        crop = picture.crop((left, top, left + width, top + height))
        view[:] = np.asarray(crop.resize((output_size, output_size), Image.Resampling.BILINEAR))
    return views
