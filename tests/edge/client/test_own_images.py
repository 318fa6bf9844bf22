"""The images of one client: an array read in place, or pictures decoded when they are drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mocosfl.data.image_folder import decode_picture
from mocosfl.edge.client.own_images import OwnImages


def pixels(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def save(folder: Path, array: Any) -> Path:
    np.save(folder / "images.npy", array)
    return folder


def test_arrays_are_read_in_the_order_asked_for_and_repeatedly(tmp_path: Path) -> None:
    array = pixels(5, 8, 8, 3)
    images = OwnImages(save(tmp_path, array))
    images.fit(8)
    order = np.array([4, 0, 4, 2])
    assert len(images) == 5
    np.testing.assert_array_equal(images.read(order), array[order])


def test_arrays_stay_on_the_disk(tmp_path: Path) -> None:
    assert isinstance(OwnImages(save(tmp_path, pixels(2, 4, 4, 3)))._array, np.memmap)


def test_arrays_of_another_size_are_refused(tmp_path: Path) -> None:
    images = OwnImages(save(tmp_path, pixels(2, 4, 4, 3)))
    with pytest.raises(ValueError, match="images of 4 x 4 pixels and the server trains on 8 x 8"):
        images.fit(8)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (pixels(2, 4, 4, 3).astype(np.float32), "type is float32"),
        (pixels(2, 4, 5, 3), r"shape \(2, 4, 5, 3\)"),
        (pixels(2, 3, 4, 4), r"shape \(2, 3, 4, 4\)"),
        (pixels(4, 4, 3), r"shape \(4, 4, 3\)"),
        (pixels(0, 4, 4, 3), "holds no images"),
        (np.array([{}]), "not a whole .npy file of numbers"),
    ],
)
def test_arrays_that_hold_no_images_are_refused(tmp_path: Path, array: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OwnImages(save(tmp_path, array))


def test_an_array_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, pixels(2, 4, 4, 3)) / "images.npy"
    for length in (200, 60, 0):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ValueError, match=r"not a whole \.npy file"):
            OwnImages(tmp_path)


def test_pictures_are_decoded_as_a_simulation_does_in_the_order_of_their_paths(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [tmp_path / "b.png", tmp_path / "a" / "z.bmp", tmp_path / "a" / "c" / "y.png"]
    for file, size in zip(files, [(8, 8), (20, 12), (9, 30)], strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(*size, 3)).save(file)
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / ".hidden.png").write_text("nothing")
    images = OwnImages(tmp_path)
    images.fit(8)
    expected = [decode_picture(file, 8) for file in sorted(files)]
    np.testing.assert_array_equal(images.read(np.array([0, 1, 2])), expected)
    np.testing.assert_array_equal(images.read(np.array([2]))[0], pixels(8, 8, 3))  # as it was
    assert "notes.txt is not a picture" in caplog.text


def test_a_picture_that_cannot_be_read_is_named_when_it_is_drawn(tmp_path: Path) -> None:
    Image.fromarray(pixels(8, 8, 3)).save(tmp_path / "good.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    images = OwnImages(tmp_path)
    images.fit(8)
    images.read(np.array([0]))
    with pytest.raises(ValueError, match=r"^--data .*torn\.png can't be read .*remove the file"):
        images.read(np.array([1]))


def test_a_folder_that_is_missing_or_holds_no_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither images\.npy nor pictures"):
        OwnImages(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        OwnImages(tmp_path / "missing")
