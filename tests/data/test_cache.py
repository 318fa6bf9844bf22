"""The cache: checks on reading, and a fill that is whole or absent."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mocosfl.data.cache import ImageArrays, SplitBlocks, load_cache, read_recipe, write_cache

CLASSES = ("cat", "dog", "owl")


def arrays(num_images: int = 6, size: int = 8) -> ImageArrays:
    generator = np.random.default_rng(num_images)
    images = generator.integers(0, 256, (num_images, size, size, 3), dtype=np.uint8)
    return ImageArrays(images, np.arange(num_images) % 3)


def save_arrays(folder: Path, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{split}_images.npy", images)
    np.save(folder / f"{split}_labels.npy", labels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache as a user might write it: no recipe, no class names."""
    save_arrays(tmp_path / "birds", "train", *arrays())
    save_arrays(tmp_path / "birds", "test", *arrays(3))
    return tmp_path / "birds"


def fill(folder: Path) -> None:
    splits = {"train": arrays(), "test": arrays(3)}
    write_cache(folder, splits, classes=CLASSES, recipe={"source": "here"})


def test_written_cache_loads_memory_mapped_and_equal(tmp_path: Path):
    fill(tmp_path / "deep" / "birds")
    loaded = load_cache(tmp_path / "deep" / "birds", 8, num_classes=3)
    assert loaded.test is not None
    for found, expected in ((loaded.train, arrays()), (loaded.test, arrays(3))):
        assert isinstance(found.images, np.memmap)
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert found.labels.dtype == np.int64
    assert loaded.classes == CLASSES
    assert read_recipe(tmp_path / "deep" / "birds") == {"source": "here"}
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["birds"]


def test_blocks_are_joined(tmp_path: Path):
    images, labels = arrays()
    blocks = SplitBlocks(iter([images[:4], images[4:]]), labels)
    write_cache(tmp_path / "birds", {"train": blocks}, classes=CLASSES, recipe={})
    loaded = load_cache(tmp_path / "birds", 8, num_classes=3)
    np.testing.assert_array_equal(loaded.train.images, images)
    assert loaded.test is None


def test_classes_are_numbered_where_no_names_are_given(folder: Path):
    assert load_cache(folder, 8, num_classes=4).classes == ("0", "1", "2", "3")


def test_second_fill_of_the_same_folder_keeps_the_first(tmp_path: Path):
    fill(tmp_path / "birds")
    other = {"train": arrays(9)}
    write_cache(tmp_path / "birds", other, classes=CLASSES, recipe={"source": "late"})
    assert len(load_cache(tmp_path / "birds", 8, num_classes=3).train.images) == 6
    assert [entry.name for entry in tmp_path.iterdir()] == ["birds"]


KILLED_FILL = """
import os, signal, sys
from pathlib import Path
import numpy as np
from mocosfl.data.cache import SplitBlocks, write_cache

def blocks():
    yield np.zeros((4, 8, 8, 3), np.uint8)
    os.kill(os.getpid(), signal.SIGKILL)

write_cache(
    Path(sys.argv[1]), {"train": SplitBlocks(blocks(), np.zeros(8, np.int64))},
    classes=("a",), recipe={},
)
"""


def test_killed_fill_leaves_no_cache_and_the_next_one_works(tmp_path: Path):
    folder = tmp_path / "birds"
    killed = subprocess.run([sys.executable, "-c", KILLED_FILL, str(folder)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert len(list(tmp_path.glob(".birds.partial-*"))) == 1  # the kill came in the middle
    fill(folder)
    assert len(load_cache(folder, 8, num_classes=3).train.images) == 6


def test_failing_source_leaves_nothing_behind(tmp_path: Path):
    def blocks() -> Iterator[np.ndarray]:
        yield arrays().images[:2]
        raise ValueError("a broken picture")

    splits = {"train": SplitBlocks(blocks(), arrays().labels)}
    with pytest.raises(ValueError, match="a broken picture"):
        write_cache(tmp_path / "birds", splits, classes=CLASSES, recipe={})
    assert list(tmp_path.iterdir()) == []


def test_crash_before_the_rename_leaves_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(ValueError, match="No space left"):
        fill(tmp_path / "birds")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_data_dir_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"data_dir=.*file: .* can't be written .*; choose"):
        fill(tmp_path / "file" / "birds")


@pytest.mark.parametrize("name", ["train_images", "train_labels", "test_images", "test_labels"])
def test_missing_file_is_named_with_the_layout(folder: Path, name: str):
    (folder / f"{name}.npy").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}\.npy: .*uint8, \(N, H, W, 3\).*write"):
        load_cache(folder, 8, num_classes=3)


def test_missing_test_split_is_allowed(folder: Path):
    for part in ("images", "labels"):
        (folder / f"test_{part}.npy").unlink()
    assert load_cache(folder, 8, num_classes=3).test is None


@pytest.mark.parametrize("name", ["train_images", "test_labels"])
def test_truncated_array_is_named_with_its_bytes(folder: Path, name: str):
    path = folder / f"{name}.npy"
    whole = path.stat().st_size
    os.truncate(path, whole - 5)
    message = rf"{name}\.npy: truncated, {whole - 5} of {whole} bytes .*; write the file again"
    with pytest.raises(ValueError, match=message):
        load_cache(folder, 8, num_classes=3)


@pytest.mark.parametrize("length", [0, 3, 40])
def test_array_truncated_in_its_header_is_named(folder: Path, length: int):
    os.truncate(folder / "train_images.npy", length)
    with pytest.raises(ValueError, match=r"train_images\.npy: not a whole \.npy file"):
        load_cache(folder, 8, num_classes=3)


def test_a_cache_of_ours_may_be_deleted_and_a_users_may_not(tmp_path: Path, folder: Path):
    fill(tmp_path / "ours")
    for place, way_out in ((tmp_path / "ours", "delete the folder"), (folder, "write the file")):
        os.truncate(place / "train_images.npy", 200)
        with pytest.raises(ValueError, match=way_out):
            load_cache(place, 8, num_classes=3)


IMAGES, LABELS = arrays()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES / np.float32(255), r"type is float32; .*\(images \* 255\)"),
        (IMAGES.astype(np.int64), "type is int64; images must be uint8"),
        (IMAGES[..., 0], r"shape \(6, 8, 8\) .*grey images: save np.repeat"),
        (IMAGES[..., :1], r"shape \(6, 8, 8, 1\) .*grey images: save np.repeat"),
        (IMAGES.transpose(0, 3, 1, 2), r"channels must come last: .*transpose\(0, 2, 3, 1\)"),
        (np.repeat(IMAGES, 2, axis=3), r"shape \(6, 8, 8, 6\) where \(N, H, W, 3\)"),
        (IMAGES.reshape(6, -1), r"shape \(6, 192\) where \(N, H, W, 3\)"),
        (IMAGES[:, :4], "must be square: crop or resize"),
        (IMAGES[:0], "holds no images"),
        (IMAGES[:5], r"labels.npy: shape \(6,\) beside 5 images; .*write"),
        (IMAGES[:, :4, :4], r"dataset.image_size=8: .*4 x 4; set dataset.image_size=4"),
    ],
)
def test_odd_images_are_refused_with_a_conversion(folder: Path, images: np.ndarray, message: str):
    np.save(folder / "train_images.npy", images)
    with pytest.raises(ValueError, match=message):
        load_cache(folder, 8, num_classes=3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS.astype(np.uint8), r"type is uint8; .*labels.astype\(np.int64\)"),
        (LABELS[:, None], r"shape \(6, 1\) beside 6 images"),
        (LABELS + 1, "dataset.num_classes=3: .*labels 1 to 3; set dataset.num_classes"),
        (LABELS - 1, "labels -1 to 1; .*number the classes from 0"),
    ],
)
def test_odd_labels_are_refused(folder: Path, labels: np.ndarray, message: str):
    np.save(folder / "test_labels.npy", labels[:3])
    np.save(folder / "train_labels.npy", labels)
    with pytest.raises(ValueError, match=message):
        load_cache(folder, 8, num_classes=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(CLASSES), "dataset.num_classes=4: .* 3 classes; set dataset.num_classes=3"),
        ("[", r"classes.json: not readable JSON"),
        ("{}", r"classes.json: a JSON list is needed"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(folder: Path, text: str, message: str):
    (folder / "classes.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_cache(folder, 8, num_classes=4)
