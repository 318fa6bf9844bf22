"""Pictures on disk: read like an array, views as those of arrays, whatever the threads do."""

import gc
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import AdaptiveAvgPool2d, Flatten, Sequential

from mocosfl.data import picture_array as pictures
from mocosfl.data.augmentation import (
    NUM_UNIFORMS,
    ViewSettings,
    draw_uniforms,
    make_views,
    parameters_from_uniforms,
)
from mocosfl.data.image_folder import decode_picture
from mocosfl.data.picture_array import PictureArray, PictureViewMaker
from mocosfl.data.view_maker import ViewMaker
from mocosfl.evaluation.features import extract_features
from mocosfl.evaluation.probe_report import dataset_of
from mocosfl.runs.checkpoint import read_encoder
from mocosfl.runs.folder import RunFolder
from mocosfl.training.run import train
from tests.support.configurations import Compose
from tests.support.view_settings import RANDOM

SIZE = 16
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.5]
CPU = torch.device("cpu")
CROPS_ALONE = replace(
    RANDOM, jitter_probability=0.0, grey_probability=0.0, blur_probability=0.0, flip_probability=0.5
)
SIZES = [(40, 30), (16, 16), (25, 60), (17, 90), (64, 64), (33, 21), (50, 50), (20, 31)]


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    width, height = size
    pixels = np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Eight pictures of noise, of mixed sizes and formats."""
    paths = [tmp_path / f"{i}.{'jpg' if i % 2 else 'png'}" for i in range(len(SIZES))]
    for seed, (path, size) in enumerate(zip(paths, SIZES, strict=True)):
        noise(size, seed).save(path)
    return paths


def view_maker(
    files: list[Path], settings: ViewSettings = RANDOM, *, num_workers: int = 2
) -> PictureViewMaker:
    array = PictureArray(files, SIZE, num_workers=num_workers)
    return PictureViewMaker(array, settings, mean=MEAN, std=STD, device=CPU)


def uniforms(num_images: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([draw_uniforms(generator, num_images) for _ in range(2)])


# ---- read like an array


def test_pictures_are_read_like_the_array_of_their_centres(files: list[Path]):
    array = PictureArray(files, SIZE, num_workers=3)
    centres = np.stack([decode_picture(file, SIZE) for file in files])

    assert (array.shape, array.dtype, array.ndim) == (centres.shape, centres.dtype, centres.ndim)
    assert len(array) == len(files)
    np.testing.assert_array_equal(np.asarray(array), centres)
    for rows in (slice(2, 5), np.array([5, 0, 5]), np.array([-1]), np.arange(8) % 3 == 0):
        np.testing.assert_array_equal(np.asarray(array[rows]), centres[rows])
        assert array[rows].shape == centres[rows].shape
    assert np.asarray(array[:2], dtype=np.float32).dtype == np.float32


def test_nothing_is_decoded_before_it_is_asked_for(files: list[Path]):
    files[3].write_bytes(b"no picture")
    array = PictureArray(files, SIZE, num_workers=2)
    assert np.asarray(array[np.array([0, 1])]).shape == (2, SIZE, SIZE, 3)
    with pytest.raises(ValueError, match=r"^dataset\.path: .*3\.jpg can't be read .*; repair or"):
        np.asarray(array)


def test_single_number_is_no_index():
    with pytest.raises(TypeError, match="slice or an array of numbers, not with 1"):
        PictureArray([Path("a"), Path("b")], SIZE, num_workers=1)[1]  # type: ignore[index]


def test_features_of_pictures_are_those_of_the_array(files: list[Path]):
    array, encoder = PictureArray(files, SIZE, num_workers=2), AdaptiveAvgPool2d(2)
    features = [
        extract_features(
            Sequential(encoder, Flatten()), images, mean=MEAN, std=STD, batch_size=3, device="cpu"
        )
        for images in (array, np.asarray(array))
    ]
    assert torch.equal(*features)


# ---- views


def test_views_are_those_of_make_views_where_the_crop_needs_no_resizing(tmp_path: Path):
    noise((40, 30)).save(tmp_path / "picture.png")
    # The crop has the area and shape of the output, so that only its place is drawn.
    part = SIZE**2 / (40 * 30)
    settings = replace(
        RANDOM, crop_scale_min=part, crop_scale_max=part, ratio_min=1.0, ratio_max=1.0
    )
    indices, numbers = np.zeros(50, np.int64), uniforms(50)
    views = view_maker([tmp_path / "picture.png"], settings).views(indices, numbers)

    whole = torch.from_numpy(np.asarray(Image.open(tmp_path / "picture.png")).copy())
    images = whole.permute(2, 0, 1).expand(50, -1, -1, -1)
    source_size = torch.tensor([[30, 40]])
    for view, own in zip(views, numbers, strict=True):
        parameters = parameters_from_uniforms(settings, own, source_size=source_size)
        assert bool((parameters.height == SIZE).all()) and bool((parameters.width == SIZE).all())
        assert len(parameters.top.unique()) > 5 and len(parameters.left.unique()) > 5
        expected = make_views(images, parameters, output_size=SIZE, mean=MEAN, std=STD)
        torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)


def test_resized_crops_are_those_of_the_array_up_to_eight_bits(tmp_path: Path):
    paths = [tmp_path / f"{seed}.png" for seed in range(12)]
    for seed, path in enumerate(paths):
        noise((SIZE, SIZE), seed).resize((48, 48), Image.Resampling.BICUBIC).save(path)
    arrays = np.stack([decode_picture(path, 48) for path in paths])
    numbers = uniforms(12)
    views = view_maker(paths, CROPS_ALONE).views(np.arange(12), numbers)

    for view, own in zip(views, numbers, strict=True):
        parameters = parameters_from_uniforms(CROPS_ALONE, own, source_size=48)
        pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2)
        expected = make_views(pixels, parameters, output_size=SIZE, mean=MEAN, std=STD)
        # Pillow rounds to 8 bits between the axes and at the end.
        torch.testing.assert_close(view, expected, atol=1.6 / 255 / min(STD), rtol=0)


def test_views_do_not_depend_on_threads_or_blocks(files: list[Path]):
    indices, numbers = np.array([3, 0, 7, 2, 5, 5, 1, 6, 4]), uniforms(9)
    whole = view_maker(files, num_workers=1).views(indices, numbers)
    for num_workers, block in ((2, 9), (5, 4), (3, 1)):
        maker = view_maker(files, num_workers=num_workers)
        parts = [
            maker.views(indices[start : start + block], numbers[:, start : start + block])
            for start in range(0, 9, block)
        ]
        for view, expected in zip(zip(*parts, strict=True), whole, strict=True):
            assert torch.equal(torch.cat(view), expected)


def test_each_view_has_a_crop_of_its_own(files: list[Path]):
    square = np.full(8, 4)  # in the long ones a crop rarely fits, and both views are the fallback
    view1, view2 = view_maker(files, CROPS_ALONE).views(square, uniforms(8))
    assert (view1 - view2).abs().amax(dim=(1, 2, 3)).min().item() > 0.1


def test_read_gives_centres_in_the_order_asked_for(files: list[Path]):
    indices = np.array([4, 1, 4])
    centres = np.stack([decode_picture(files[i], SIZE) for i in indices]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(view_maker(files).read(indices).numpy(), centres)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA"])
def test_any_mode_makes_views(tmp_path: Path, mode: str):
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    Image.new("RGB", (30, 20), (255, 255, 255)).convert(mode).save(path)
    view, _ = view_maker([path], CROPS_ALONE).views(np.zeros(1, np.int64), uniforms(1))
    expected = [(1 - mean) / std for mean, std in zip(MEAN, STD, strict=True)]
    for channel, value in zip(view[0], expected, strict=True):
        np.testing.assert_allclose(channel.numpy(), value, atol=1e-5)


def test_turned_photographs_are_cropped_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side: 60 x 20 is 20 x 60 when set upright
    picture = Image.new("RGB", (60, 20))
    picture.paste((255, 255, 255), (0, 0, 30, 20))
    picture.save(tmp_path / "photo.png", exif=exif)
    whole = replace(CROPS_ALONE, crop_scale_min=1.0, ratio_min=1 / 3, ratio_max=1 / 3)
    view, _ = view_maker([tmp_path / "photo.png"], whole).views(np.zeros(1, np.int64), uniforms(1))
    bright = view[0, 0] > 0
    assert bool(bright[: SIZE // 2 - 1].all()) and not bool(bright[SIZE // 2 + 1 :].any())


def test_unreadable_picture_is_named(files: list[Path]):
    files[5].write_bytes(files[5].read_bytes()[:150])
    maker = view_maker(files)
    maker.prefetch(np.arange(8), uniforms(8))
    with pytest.raises(ValueError, match=r"^dataset\.path: .*5\.jpg can't be read .*; repair or"):
        maker.views(np.arange(8), uniforms(8))


# ---- prefetch


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the pictures decoded for views, as they are."""
    names: list[str] = []
    original = pictures.open_upright

    def counting(file: Path) -> Image.Image:
        names.append(file.name)
        return original(file)

    monkeypatch.setattr(pictures, "open_upright", counting)
    return names


def test_prefetch_changes_no_bit_and_decodes_once(files: list[Path], decoded: list[str]):
    blocks = [(np.arange(4), uniforms(4)), (np.arange(4, 8), uniforms(4, seed=1))]
    expected = [view_maker(files).views(*block) for block in blocks]
    decoded.clear()
    maker = view_maker(files)
    for block in (*blocks, blocks[0]):  # asking twice is asking once
        maker.prefetch(*block)
    for block, views in zip(blocks, expected, strict=True):
        for view, other in zip(maker.views(*block), views, strict=True):
            assert torch.equal(view, other)
    assert len(decoded) == 8


def test_prefetch_works_while_nobody_waits(files: list[Path], decoded: list[str]):
    view_of_all = (np.arange(8), uniforms(8))
    maker = view_maker(files)
    maker.prefetch(*view_of_all)
    deadline = time.monotonic() + 20
    while len(decoded) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(decoded) == sorted(file.name for file in files)


def test_views_of_other_arguments_than_the_prefetched_are_made_all_the_same(files: list[Path]):
    expected = view_maker(files).views(np.arange(4), uniforms(4))
    maker = view_maker(files)
    maker.prefetch(np.arange(4), uniforms(4, seed=9))
    maker.prefetch(np.arange(1, 5), uniforms(4))
    for view, other in zip(maker.views(np.arange(4), uniforms(4)), expected, strict=True):
        assert torch.equal(view, other)


def test_no_more_than_two_blocks_are_kept(files: list[Path], decoded: list[str]):
    maker = view_maker(files)
    for seed in range(6):
        maker.prefetch(np.arange(8), uniforms(8, seed))
    assert len(maker._pending) == 2
    maker.views(np.arange(8), uniforms(8, 5))
    assert len(maker._pending) == 0  # the block before it was passed over


def test_threads_end_with_their_maker(files: list[Path]):
    maker = view_maker(files)
    maker.views(np.arange(8), uniforms(8))
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("pictures")]
    assert workers
    del maker
    gc.collect()
    for thread in workers:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_prefetch_of_arrays_is_nothing():
    arrays = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    maker = ViewMaker(arrays, RANDOM, mean=MEAN, std=STD, device=CPU)
    maker.prefetch(np.arange(3), torch.zeros(2, 3, NUM_UNIFORMS))


# ---- a run


def test_run_on_a_tree_of_pictures_trains_and_gives_features(
    compose_quick: Compose, tmp_path: Path
):
    for label in range(2):
        for index in range(30):
            path = tmp_path / "birds" / f"class{label}" / f"{index}.{'jpg' if index % 2 else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise((20 + index, 50 - index), seed=index).save(path)
    config = compose_quick(
        [
            "dataset=imagenet12",
            "dataset.name=birds",
            f"dataset.path={tmp_path / 'birds'}",
            "dataset.image_size=16",
            "dataset.num_classes=2",
            "partition=iid",
            "clients.num_clients=6",
            "clients.participation=0.5",
            "trainer.max_steps=2",
            "callbacks.knn_num_images=20",
            "callbacks.pictures=true",
            "moco.queue_length=400",
        ]
    )
    folder = RunFolder(tmp_path / "run")
    module = train(config, folder, resume=False)
    assert module.trainer.global_step == 2
    assert (folder.pictures / "views.png").is_file()
    encoder = read_encoder(folder.last)
    dataset = dataset_of(encoder, None)
    assert dataset.test is not None
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (48, 12)
    assert not (Path(config.data_dir) / "birds").exists()
