"""Sources: each fills the cache once, and each kind of bad input says what to do."""

import errno
import fcntl
import gzip
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets
import torchvision
from PIL import Image

from mocosfl.data import sources
from mocosfl.data.image_folder import PictureError, decode_picture, walk_pictures
from mocosfl.data.public_sets import TORCHVISION
from mocosfl.data.sources import load_dataset, stratified_split


@dataclass(frozen=True)
class Settings:
    name: str = "birds"
    source: str = "digits"
    path: str | None = None
    image_size: int = 16
    num_classes: int = 10
    download: bool = False
    test_fraction: float = 0.2
    num_workers: int = 2


DIGITS = Settings()


@pytest.fixture(autouse=True)
def _no_debian_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "DEBIAN_FASHION_MNIST", tmp_path / "no-package")


def forbid(*_: object, **__: object) -> None:
    raise AssertionError("the source was touched although the cache is there")


# digits, and what all sources share


def test_digits_are_split_resized_and_coloured(tmp_path: Path):
    loaded = load_dataset(DIGITS, tmp_path)
    assert loaded.test is not None
    assert loaded.train.images.shape == (1438, 16, 16, 3)
    assert loaded.test.images.shape == (359, 16, 16, 3)
    assert loaded.train.images.max() == 255
    np.testing.assert_array_equal(loaded.train.images[..., 0], loaded.train.images[..., 2])
    per_class = np.bincount(loaded.test.labels)
    assert per_class.min() >= 35
    assert per_class.max() <= 37
    assert loaded.classes == tuple("0123456789")


def test_digits_keep_their_pixels_at_their_own_size(tmp_path: Path):
    digits = sklearn.datasets.load_digits()
    settings = replace(DIGITS, image_size=8, test_fraction=0.0)
    loaded = load_dataset(settings, tmp_path)
    assert loaded.test is None
    np.testing.assert_array_equal(loaded.train.labels, digits.target)
    np.testing.assert_allclose(loaded.train.images[..., 1] / 255, digits.images / 16, atol=0.002)


def test_full_cache_leaves_the_source_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = load_dataset(DIGITS, tmp_path)
    monkeypatch.setattr(sklearn.datasets, "load_digits", forbid)
    second = load_dataset(DIGITS, tmp_path)
    np.testing.assert_array_equal(first.train.images, second.train.images)


def test_arrays_put_into_the_cache_replace_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save_arrays(tmp_path / "cifar10")
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", forbid)
    settings = Settings("cifar10", "cifar10", image_size=4, num_classes=2)
    loaded = load_dataset(settings, tmp_path)
    assert len(loaded.train.images) == 6
    assert loaded.test is None


def test_split_is_the_same_every_time(tmp_path: Path):
    first = load_dataset(DIGITS, tmp_path / "a")
    second = load_dataset(DIGITS, tmp_path / "b")
    np.testing.assert_array_equal(first.train.images, second.train.images)


def test_two_fills_at_the_same_time_read_the_source_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    digits = sklearn.datasets.load_digits()
    reads = []

    def slow_read() -> object:
        reads.append(1)
        time.sleep(0.3)  # long enough for the other fill to begin
        return digits

    monkeypatch.setattr(sklearn.datasets, "load_digits", slow_read)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: load_dataset(DIGITS, tmp_path), range(2))
    np.testing.assert_array_equal(first.train.images, second.train.images)
    assert len(reads) == 1


def test_fills_on_a_file_system_without_locks_still_give_one_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: load_dataset(DIGITS, tmp_path), range(2))
    np.testing.assert_array_equal(first.train.images, second.train.images)
    assert "filling without" in caplog.text
    assert not list(tmp_path.glob(".birds.partial-*"))


def test_stratified_split_takes_the_fraction_of_every_class_and_keeps_one():
    labels = np.repeat([0, 1, 2, 3], [100, 10, 2, 1])
    train, test = stratified_split(labels, 0.2)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(113))
    assert np.bincount(labels[test]).tolist() == [20, 2, 1]
    assert len(stratified_split(labels, 0.0)[1]) == 0


def test_other_number_of_classes_than_the_source_has_leaves_no_cache(tmp_path: Path):
    message = "dataset.num_classes=7: .*10 classes; set dataset.num_classes=10"
    with pytest.raises(ValueError, match=message):
        load_dataset(replace(DIGITS, num_classes=7), tmp_path)
    assert not (tmp_path / "birds").exists()


@pytest.mark.parametrize("source", ["arrays", "image_folder", "pictures"])
def test_missing_path_is_named(tmp_path: Path, source: str):
    settings = replace(DIGITS, source=source, path=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"dataset\.path=.*nowhere: no such folder"):
        load_dataset(settings, tmp_path)


def test_unwritable_data_dir_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"data_dir=.*file.*: can't be written .*; choose another"):
        load_dataset(DIGITS, tmp_path / "file")


@pytest.mark.parametrize(("key", "value"), [("image_size", 8), ("test_fraction", 0.3)])
def test_cache_made_with_other_settings_is_refused(tmp_path: Path, key: str, value: float):
    made_with = getattr(DIGITS, key)
    load_dataset(DIGITS, tmp_path)
    message = f"dataset.{key}={value}: .* made with {made_with}; choose another dataset.name"
    with pytest.raises(ValueError, match=message):
        load_dataset(replace(DIGITS, **{key: value}), tmp_path)


# torchvision and Debian


class FakeDownload:
    """A torchvision data set of 6 training and 3 test images, in the form of each class."""

    def __init__(self, form: str) -> None:
        self.form = form
        self.calls: list[dict[str, object]] = []

    def __call__(self, **arguments: object) -> SimpleNamespace:
        self.calls.append(arguments)
        is_train = arguments["train"] if "train" in arguments else arguments["split"] == "train"
        images = np.zeros((6 if is_train else 3, 32, 32, 3), dtype=np.uint8)
        images[:, :16, :, 0] = 200  # red above
        labels = np.arange(len(images)) % 10
        if self.form in ("SVHN", "STL10"):
            first = images.transpose(0, 3, 1, 2)
            return SimpleNamespace(data=first, labels=labels.astype(np.uint8))
        if self.form == "FashionMNIST":
            images = images[..., 0]
        return SimpleNamespace(data=images, targets=labels.tolist(), classes=list("abcdefghij"))


@pytest.mark.parametrize("source", list(TORCHVISION))
def test_torchvision_sets_fill_the_cache_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
):
    name = TORCHVISION[source].class_name
    download = FakeDownload(name)
    monkeypatch.setattr(torchvision.datasets, name, download)
    settings = Settings("public", source, image_size=32, download=True)
    loaded = load_dataset(settings, tmp_path)
    assert loaded.test is not None
    assert loaded.train.images.shape == (6, 32, 32, 3)
    assert loaded.test.labels.tolist() == [0, 1, 2]
    assert loaded.train.images[0, 3, 5, 0] == 200
    assert loaded.train.images[0, 20, 5, 0] == 0
    assert loaded.train.images[0, 3, 5, 1] == (200 if source == "fashion_mnist" else 0)
    assert loaded.classes == tuple("0123456789" if name in ("SVHN", "STL10") else "abcdefghij")
    assert [call["download"] for call in download.calls] == [True, True]
    assert {call["root"] for call in download.calls} == {str(tmp_path / "raw")}
    load_dataset(settings, tmp_path)
    assert len(download.calls) == 2


@pytest.mark.parametrize("source", list(TORCHVISION))
def test_missing_files_without_download_say_what_goes_where(tmp_path: Path, source: str):
    settings = Settings("public", source, image_size=32)
    message = (
        rf"dataset\.source={source}: .*dataset\.download=true \(now False\).*raw/.*"
        r"train_images\.npy \(uint8, \(N, 32, 32, 3\)\)"
    )
    with pytest.raises(FileNotFoundError, match=message):
        load_dataset(settings, tmp_path)
    assert not (tmp_path / "public").exists()


@pytest.mark.parametrize(
    "error",
    [URLError("no network"), ConnectionResetError(104, "reset"), RuntimeError("corrupted")],
)
def test_failing_download_says_what_goes_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    settings = Settings("cifar10", "cifar10", download=True)
    with pytest.raises(FileNotFoundError, match=r"\(.*(network|reset|corrupted).*now True"):
        load_dataset(settings, tmp_path)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for part, count in (("train", 5), ("t10k", 2)):
        images = np.arange(count * 28 * 28).reshape(count, 28, 28).astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(count).astype(np.uint8))
    monkeypatch.setattr(sources, "DEBIAN_FASHION_MNIST", folder)
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", forbid)
    return folder


@pytest.mark.usefixtures("debian")
def test_fashion_mnist_is_read_from_debians_package(tmp_path: Path):
    loaded = load_dataset(Settings("fashion", "fashion_mnist", image_size=28), tmp_path)
    assert loaded.test is not None
    expected = np.arange(5 * 28 * 28).reshape(5, 28, 28).astype(np.uint8)
    np.testing.assert_array_equal(loaded.train.images[..., 2], expected)
    assert loaded.train.labels.tolist() == [0, 1, 2, 3, 4]
    assert loaded.test.labels.tolist() == [0, 1]
    assert loaded.classes[9] == "Ankle boot"
    resized = load_dataset(Settings("larger", "fashion_mnist", image_size=32), tmp_path)
    assert resized.train.images.shape == (5, 32, 32, 3)


@pytest.mark.parametrize("damage", ["missing", "cut", "not gzip", "empty", "bytes"])
def test_broken_package_file_is_named(tmp_path: Path, debian: Path, damage: str):
    path = debian / "train-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        wrong = bytes(byte ^ 255 for byte in content[10:])
        path.write_bytes(
            {
                "cut": content[:-9],
                "not gzip": b"1234567",
                "empty": gzip.compress(b""),
                "bytes": content[:10] + wrong,
            }[damage]
        )
    with pytest.raises(ValueError, match=r"train-labels.*can't be read .*install the package"):
        load_dataset(Settings("fashion", "fashion_mnist"), tmp_path)


# arrays


def save_arrays(folder: Path) -> None:
    folder.mkdir()
    np.save(folder / "train_images.npy", np.zeros((6, 4, 4, 3), dtype=np.uint8))
    np.save(folder / "train_labels.npy", np.arange(6) % 2)


def test_users_arrays_are_read_in_place(tmp_path: Path):
    save_arrays(tmp_path / "mine")
    settings = Settings(source="arrays", path=str(tmp_path / "mine"), image_size=4, num_classes=2)
    loaded = load_dataset(settings, tmp_path / "data")
    assert isinstance(loaded.train.images, np.memmap)
    assert Path(str(loaded.train.images.filename)) == tmp_path / "mine" / "train_images.npy"
    assert not (tmp_path / "data").exists()


def test_users_grey_arrays_are_refused_without_advice_to_delete_them(tmp_path: Path):
    save_arrays(tmp_path / "mine")
    np.save(tmp_path / "mine" / "train_images.npy", np.zeros((6, 4, 4), dtype=np.uint8))
    settings = Settings(source="arrays", path=str(tmp_path / "mine"), image_size=4, num_classes=2)
    with pytest.raises(ValueError, match=r"grey images: save np\.repeat") as raised:
        load_dataset(settings, tmp_path)
    assert "delete" not in str(raised.value)


# image_folder


def save_picture(path: Path, size: tuple[int, int] = (30, 20), colour: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour, 0, 255 - colour)).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes of five pictures, of several formats and sizes, one of them deeper."""
    root = tmp_path / "pictures"
    for label, name in enumerate(("cat", "dog")):
        for index in range(4):
            suffix = ("png", "JPG", "bmp", "webp")[index]
            size = (10 + 7 * index, 40 - 9 * index)
            save_picture(root / name / f"{index}.{suffix}", size, 200 * label)
        save_picture(root / name / "more" / "deep" / "4.png", colour=200 * label)
    (root / ".cache").mkdir()
    (root / "cat" / ".hidden.png").write_text("")
    return root


def folder_settings(root: Path, **changes: object) -> Settings:
    settings = Settings(source="image_folder", path=str(root), image_size=8, num_classes=2)
    return replace(settings, **changes)


def test_plain_tree_is_decoded_and_split(tmp_path: Path, tree: Path):
    loaded = load_dataset(folder_settings(tree), tmp_path)
    assert loaded.test is not None
    assert loaded.classes == ("cat", "dog")
    assert loaded.train.images.shape == (8, 8, 8, 3)
    assert np.bincount(loaded.train.labels).tolist() == [4, 4]
    assert np.bincount(loaded.test.labels).tolist() == [1, 1]
    red = loaded.train.images[..., 0].mean(axis=(1, 2))
    np.testing.assert_allclose(red, 200 * loaded.train.labels, atol=6)  # lossy formats


@pytest.mark.parametrize("name", ["test", "val"])
def test_tree_with_a_test_split_keeps_it(tmp_path: Path, tree: Path, name: str):
    for label in ("cat", "dog"):
        shutil.copytree(tree / label, tmp_path / "splits" / "train" / label)
    save_picture(tmp_path / "splits" / name / "dog" / "1.png")
    loaded = load_dataset(folder_settings(tmp_path / "splits"), tmp_path)
    assert loaded.test is not None
    assert len(loaded.train.labels) == 10
    assert loaded.test.labels.tolist() == [1]


def test_links_are_followed_but_no_folder_is_taken_twice(tmp_path: Path):
    for name in ("all/a/1.png", "all/b/2.png", "elsewhere/deep/3.png"):
        save_picture(tmp_path / name)
    (tmp_path / "all" / "a" / "loop").symlink_to("..")
    (tmp_path / "all" / "a" / "beside").symlink_to("../b")
    (tmp_path / "all" / "b" / "out").symlink_to(tmp_path / "elsewhere")
    found = {str(file.relative_to(tmp_path)) for file in walk_pictures(tmp_path / "all", [])}
    assert found == {"all/a/1.png", "all/b/2.png", "all/b/out/deep/3.png"}
    assert len(list(walk_pictures(tmp_path / "all", []))) == 3


def test_hidden_folders_are_left_out(tmp_path: Path):
    save_picture(tmp_path / ".all" / ".thumbs" / "deep" / "1.png")
    save_picture(tmp_path / ".all" / "2.png")
    assert list(walk_pictures(tmp_path / ".all", [])) == [tmp_path / ".all" / "2.png"]


@pytest.mark.parametrize("locked", ["cat/more", "dog", "."])
def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, locked: str
):
    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, partial(refuse_one, getattr(os, name), tree / locked))
    message = rf"^dataset\.path: the folder {tree / locked} can't be read \(Permission .*chmod"
    with pytest.raises(ValueError, match=message):
        load_dataset(folder_settings(tree), tmp_path)


def refuse_one(listing: Callable[[Any], Any], locked: Path, path: Any) -> Any:
    """List a folder as `os` does, but for one; the tests may run as root, who may read all."""
    if Path(path) == locked:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return listing(path)


def test_whole_cache_serves_without_its_pictures(tmp_path: Path, tree: Path):
    load_dataset(folder_settings(tree), tmp_path)
    shutil.rmtree(tree)
    assert len(load_dataset(folder_settings(tree), tmp_path).train.labels) == 8


def test_cache_of_another_path_is_refused(tmp_path: Path, tree: Path):
    load_dataset(folder_settings(tree), tmp_path)
    tree.rename(tmp_path / "others")
    with pytest.raises(ValueError, match=r"dataset\.path=.*others: .*pictures; choose another"):
        load_dataset(folder_settings(tmp_path / "others"), tmp_path)


def test_shorter_side_is_resized_and_the_centre_kept(tmp_path: Path):
    wide = np.zeros((40, 120, 3), dtype=np.uint8)
    wide[:, 40:80] = 255  # the centre square is white
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert decode_picture(tmp_path / "wide.png", 10).min() > 200
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    assert decode_picture(tmp_path / "tall.png", 10).min() > 200


def test_shrinking_is_antialiased(tmp_path: Path):
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    small = decode_picture(tmp_path / "board.png", 8)
    assert abs(small.astype(int) - 127).max() < 20


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_pixel_format_becomes_rgb(tmp_path: Path, mode: str):
    if mode == "I;16":
        picture = Image.fromarray(np.full((9, 9), 65535, dtype=np.uint16))
    else:
        picture = Image.new("RGB", (9, 9), (255, 255, 255)).convert(mode)
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    picture.save(path, **({"transparency": b"\x80\xff"} if mode == "P" else {}))
    decoded = decode_picture(path, 5)
    assert decoded.shape == (5, 5, 3)
    assert decoded.min() == 255


def test_sixteen_bits_keep_their_shades(tmp_path: Path):
    Image.fromarray(np.full((9, 9), 128 << 8, dtype=np.uint16)).save(tmp_path / "grey.png")
    assert set(decode_picture(tmp_path / "grey.png", 5).ravel()) == {128}


def test_turned_photographs_are_set_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:4] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    decoded = decode_picture(tmp_path / "photo.png", 8)
    assert decoded[:4].max() == 0
    assert decoded[4:].min() == 255


def test_unreadable_pictures_are_named(tmp_path: Path, tree: Path):
    whole = (tree / "cat" / "0.png").read_bytes()
    for content in (b"", b"no picture", whole[: len(whole) // 2], whole[:40]):
        (tree / "dog" / "0.png").write_bytes(content)
        message = r"^dataset\.path: the picture .*dog/0\.png can't be read .*; repair or remove"
        with pytest.raises(ValueError, match=message):
            load_dataset(folder_settings(tree), tmp_path)
        assert not (tmp_path / "birds").exists()


def test_pixels_without_a_range_are_refused(tmp_path: Path):
    Image.fromarray(np.ones((5, 5), dtype=np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(PictureError, match=r"depth\.tif can't be read .*no known range"):
        decode_picture(tmp_path / "depth.tif", 4)


def test_trees_that_are_no_class_folders_are_refused(tmp_path: Path, tree: Path):
    with pytest.raises(ValueError, match=r"no class folders in .*more/deep; put the pictures"):
        load_dataset(folder_settings(tree / "cat" / "more" / "deep"), tmp_path)
    (tree / "owl").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*owl holds no pictures .*fill or remove"):
        load_dataset(folder_settings(tree), tmp_path)
    os.rename(tree, tmp_path / "train")
    (tmp_path / "train" / "owl").rmdir()
    save_picture(tmp_path / "test" / "fox" / "1.png")
    with pytest.raises(ValueError, match="the class fox, which training has not; give both"):
        load_dataset(folder_settings(tmp_path), tmp_path / "data")


def test_wrong_number_of_classes_is_refused_before_decoding(tmp_path: Path, tree: Path):
    (tree / "cat" / "0.png").write_bytes(b"would be found broken")
    with pytest.raises(
        ValueError, match=r"num_classes=3: .* 2 classes; set dataset\.num_classes=2"
    ):
        load_dataset(folder_settings(tree, num_classes=3), tmp_path)


def test_files_left_out_are_named_in_one_line(
    tmp_path: Path, tree: Path, caplog: pytest.LogCaptureFixture
):
    (tree / "cat" / "notes.txt").write_text("")
    (tree / "dog" / "boxes.txt").write_text("")
    load_dataset(folder_settings(tree), tmp_path)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "notes.txt is not a picture by its name; left out, like 1 more" in warnings[0]


# Tiny ImageNet's layout


@pytest.fixture
def tiny_imagenet(tmp_path: Path) -> Path:
    """Two classes of three pictures, four labelled ones in val, and an unlabelled one in test."""
    root = tmp_path / "tiny"
    for label, name in enumerate(("n01", "n02")):
        for index in range(3):
            path = root / "train" / name / "images" / f"{name}_{index}.JPEG"
            save_picture(path, (8, 8), 200 * label)
        (root / "train" / name / f"{name}_boxes.txt").write_text("")
    lines = []
    for index, name in enumerate(("n02", "n01", "n01", "n02")):
        path = root / "val" / "images" / f"val_{index}.JPEG"
        save_picture(path, (8, 8), 200 * (name == "n02"))
        lines.append(f"val_{index}.JPEG\t{name}\t0\t0\t7\t7\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    save_picture(root / "test" / "images" / "test_0.JPEG")
    return root


@pytest.mark.parametrize("source", ["image_folder", "pictures"])
def test_annotated_val_folder_is_the_test_split(
    tmp_path: Path, tiny_imagenet: Path, source: str, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO"):
        loaded = load_dataset(folder_settings(tiny_imagenet, source=source), tmp_path)
    assert loaded.test is not None
    assert loaded.classes == ("n01", "n02")
    assert len(loaded.train.labels) == 6
    assert loaded.test.labels.tolist() == [1, 0, 0, 1]
    red = np.asarray(loaded.test.images)[..., 0].mean(axis=(1, 2))
    np.testing.assert_allclose(red, 200 * loaded.test.labels, atol=6)
    assert "tiny/test is left out" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "val_annotations.txt is empty; unpack the data set again"),
        ("val_0.JPEG\tn02\nval_1.JPEG\tn09\n", "line 2 of .*: there is no class 'n09'; each line"),
        ("val_7.JPEG\tn02\t0\n", "line 1 of .*: there is no picture 'val_7.JPEG'; each line"),
        ("val_0.JPEG n02\n", "line 1 of .*: there is no class ''; each line"),
        ("\tn02\n", "line 1 of .*: there is no picture ''; each line"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(
    tmp_path: Path, tiny_imagenet: Path, text: str, message: str
):
    (tiny_imagenet / "val" / "val_annotations.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"dataset\.path: .*{message}"):
        load_dataset(folder_settings(tiny_imagenet), tmp_path)


# pictures


def test_listed_pictures_are_split_like_an_image_folder(tmp_path: Path, tree: Path):
    decoded = load_dataset(folder_settings(tree), tmp_path)
    listed = load_dataset(folder_settings(tree, source="pictures"), tmp_path / "unused")
    assert listed.classes == decoded.classes
    assert not (tmp_path / "unused").exists()  # nothing is cached
    for ours, arrays in ((listed.train, decoded.train), (listed.test, decoded.test)):
        assert ours is not None
        assert arrays is not None
        np.testing.assert_array_equal(ours.labels, arrays.labels)
        np.testing.assert_array_equal(np.asarray(ours.images), arrays.images)


def test_listed_pictures_have_no_test_split_where_none_is_asked_for(tmp_path: Path, tree: Path):
    settings = folder_settings(tree, source="pictures", test_fraction=0.0)
    loaded = load_dataset(settings, tmp_path)
    assert loaded.test is None
    assert len(loaded.train.images) == 10


def test_wrong_number_of_classes_of_listed_pictures_is_refused(tmp_path: Path, tree: Path):
    with pytest.raises(
        ValueError, match=r"num_classes=3: .* 2 classes; set dataset\.num_classes=2"
    ):
        load_dataset(folder_settings(tree, source="pictures", num_classes=3), tmp_path)
