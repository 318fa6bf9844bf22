"""Views without torch are the training's views: operation by operation, and in distribution."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats

from mocosfl.data import augmentation, image_operations
from mocosfl.data.augmentation import ViewSettings
from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge.client import pillow_views
from mocosfl.edge.client.pillow_views import DrawnView
from mocosfl.system.randomness import numpy_generator
from tests.support.view_settings import MEAN, SETTINGS, STD, STILL, draw_views

NUM_DRAWN = 3000
# Of a test that compares two samples of one distribution; seeds are fixed, so it never fails by
# chance again. With 30 comparisons at most, the smallest p of a right program is about 0.03.
SMALLEST_P = 1e-3
OPERATIONS = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")


def views_of(settings: ViewSettings) -> pb.Views:
    return pb.Views(**asdict(settings))


def pictures(num_images: int, *, height: int = 32, width: int = 32) -> npt.NDArray[np.uint8]:
    """Smooth random pictures with borders, greys, blacks and whites: (R, H, W, 3)."""
    generator = np.random.default_rng(5)
    coarse = generator.integers(-60, 316, (num_images, height // 4, width // 4, 3))
    images = coarse.clip(0, 255).repeat(4, axis=1).repeat(4, axis=2)
    images[:, ::5] = images[:, ::5, :, :1]  # grey rows
    return images.astype(np.uint8)


def row_of(parameters: augmentation.ViewParameters, row: int) -> DrawnView:
    """One image's parameters, as the device has them."""
    values = [field[row].tolist() for field in parameters]
    return DrawnView(*(tuple(v) if isinstance(v, list) else v for v in values))


def torch_views(
    images: npt.NDArray[np.uint8], parameters: augmentation.ViewParameters, *, output_size: int
) -> npt.NDArray[np.float32]:
    planes = torch.from_numpy(images).permute(0, 3, 1, 2)
    made = augmentation.make_views(planes, parameters, output_size=output_size, mean=MEAN, std=STD)
    return made.numpy()


def test_the_uniform_numbers_mean_the_same() -> None:
    assert pillow_views.COLUMNS == augmentation._COLUMNS
    assert list(pillow_views.COLUMNS) == list(augmentation._COLUMNS)
    assert pillow_views.NUM_UNIFORMS == augmentation.NUM_UNIFORMS
    ours = [operation.__name__ for operation in pillow_views.COLOUR_OPERATIONS]
    assert ours == [name.replace("adjust", "with") for name in OPERATIONS]
    assert [f.__name__ for f in augmentation._COLOUR_OPERATIONS] == list(OPERATIONS)


@pytest.mark.parametrize("height, width", [(32, 32), (28, 96)])
@pytest.mark.parametrize(
    "settings", [SETTINGS, replace(SETTINGS, crop_scale_min=0.97, ratio_min=1.3, ratio_max=1.33)]
)
def test_the_same_uniform_numbers_give_the_same_parameters(
    settings: ViewSettings, height: int, width: int
) -> None:
    uniforms = augmentation.draw_uniforms(torch.Generator().manual_seed(1), 500)
    source = torch.tensor([[height, width]])
    expected = augmentation.parameters_from_uniforms(settings, uniforms, source_size=source)
    for row, numbers in enumerate(uniforms.tolist()):
        found = pillow_views.view_from_uniforms(views_of(settings), numbers, source=(height, width))
        theirs = row_of(expected, row)
        assert found.factors == pytest.approx(theirs.factors, abs=1e-6)
        assert found.sigma == pytest.approx(theirs.sigma, abs=1e-6)
        assert found._replace(factors=(), sigma=0) == theirs._replace(factors=(), sigma=0)


@pytest.mark.parametrize("name", OPERATIONS)
def test_colour_operations_give_the_trainings_picture(name: str) -> None:
    planes = pictures(5).transpose(3, 0, 1, 2).astype(np.float32) / 255
    factors = [-0.1, -0.03, 0.0, 0.05, 0.1] if name == "adjust_hue" else [0.6, 0.8, 1, 1.2, 1.4]
    operation: Callable[..., torch.Tensor] = getattr(image_operations, name)
    expected = operation(torch.from_numpy(planes), torch.tensor(factors)).numpy()
    for row, factor in enumerate(factors):
        found = getattr(pillow_views, name.replace("adjust", "with"))(planes[:, row], factor)
        np.testing.assert_allclose(found, expected[:, row], atol=2e-6)


def test_grey_gives_the_trainings_picture() -> None:
    planes = pictures(1)[0].transpose(2, 0, 1).astype(np.float32) / 255
    expected = image_operations.to_grey(torch.from_numpy(planes)[:, None])[:, 0].numpy()
    np.testing.assert_allclose(pillow_views.in_grey(planes), expected, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.0, 2.0, 9.0])
@pytest.mark.parametrize("size", [4, 8, 32])
def test_blur_gives_the_trainings_picture(sigma: float, size: int) -> None:
    planes = pictures(1, height=size, width=size)[0].transpose(2, 0, 1).astype(np.float32) / 255
    blurred = image_operations.gaussian_blur(
        torch.from_numpy(planes)[:, None], torch.tensor([sigma])
    )
    np.testing.assert_allclose(
        pillow_views.blurred(planes, sigma), blurred[:, 0].numpy(), atol=2e-6
    )


def test_a_picture_of_one_pixel_is_blurred_into_itself() -> None:
    planes = np.full((3, 1, 1), 0.3, np.float32)
    np.testing.assert_allclose(pillow_views.blurred(planes, 2.0), planes, atol=1e-7)


@pytest.mark.parametrize("output_size", [32, 24, 48])
def test_crops_give_the_trainings_picture(output_size: int) -> None:
    settings = replace(STILL, crop_scale_min=0.08, ratio_min=0.5, ratio_max=2, flip_probability=0.5)
    images = pictures(40)
    drawn = draw_views(settings, torch.Generator().manual_seed(2), num_images=40, source_size=32)
    assert 0 < drawn.flip.sum() < 40
    expected = torch_views(images, drawn, output_size=output_size)
    rows = [row_of(drawn, row) for row in range(40)]
    found = pillow_views.make_pillow_views(
        images, rows, output_size=output_size, mean=MEAN, std=STD
    )
    assert found.dtype == np.float32
    # Pillow's weights are float64 and the training's are float32.
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_crop_sees_nothing_of_the_pixels_around_it() -> None:
    image = np.full((32, 32, 3), 255, np.uint8)
    image[8:16, 4:16] = 100
    own = DrawnView(8, 4, 8, 12, (), (), False, False, False, 1.0, False)
    np.testing.assert_allclose(pillow_views.crop(image, own, 5), 100 / 255, atol=1e-6)


def test_whole_views_are_the_trainings_where_the_numbers_are_the_same() -> None:
    images = pictures(200)
    drawn = draw_views(SETTINGS, torch.Generator().manual_seed(4), num_images=200, source_size=32)
    rows = [row_of(drawn, row) for row in range(200)]
    found = pillow_views.make_pillow_views(images, rows, output_size=32, mean=MEAN, std=STD)
    np.testing.assert_allclose(found, torch_views(images, drawn, output_size=32), atol=1e-4)


def test_views_leave_the_images_as_they_are() -> None:
    images = pictures(20)
    before = images.copy()
    images.flags.writeable = False  # as a memory-mapped file is
    draw_and_make(images, seed=1)
    np.testing.assert_array_equal(images, before)


def draw_and_make(images: npt.NDArray[np.uint8], *, seed: int) -> npt.NDArray[np.float32]:
    generator = numpy_generator(seed, "edge_views", 3, 0, 0)
    rows = pillow_views.draw_pillow_views(
        views_of(SETTINGS), generator, num_images=len(images), source=images.shape[1:3]
    )
    return pillow_views.make_pillow_views(images, rows, output_size=32, mean=MEAN, std=STD)


@lru_cache
def _drawn() -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, npt.NDArray[np.float64]]]:
    """What the device draws, and what the training draws, by name."""
    generator = numpy_generator(0, "edge_views", 3, 0, 0)
    rows = pillow_views.draw_pillow_views(
        views_of(SETTINGS), generator, num_images=NUM_DRAWN, source=(32, 32)
    )
    ours = {name: np.array([getattr(row, name) for row in rows]) for name in DrawnView._fields}
    drawn = draw_views(
        SETTINGS, torch.Generator().manual_seed(0), num_images=NUM_DRAWN, source_size=32
    )
    theirs = {name: field.numpy() for name, field in drawn._asdict().items()}
    for values in (ours, theirs):
        values["area"] = values["height"] * values["width"]
        values["ratio"] = values["width"] / values["height"]
        # Where in its room; a large crop has little.
        for place, side in (("top", "height"), ("left", "width")):
            has_room = values[side] < 20
            values[f"{place}_part"] = values[place][has_room] / (32 - values[side][has_room])
        for index, operation in enumerate(OPERATIONS):
            values[operation] = values["factors"][:, index]
    return ours, theirs


@pytest.mark.parametrize(
    "name", ["area", "ratio", "top_part", "left_part", "height", "width", "sigma", *OPERATIONS]
)
def test_drawn_numbers_have_the_trainings_distribution(name: str) -> None:
    ours, theirs = _drawn()
    assert len(ours[name]) > NUM_DRAWN / 3
    assert stats.ks_2samp(ours[name], theirs[name]).pvalue > SMALLEST_P


@pytest.mark.parametrize(
    "name, probability", [("jitter", 0.8), ("grey", 0.2), ("blur", 0.5), ("flip", 0.5)]
)
def test_operations_are_drawn_with_their_probability(name: str, probability: float) -> None:
    ours, _ = _drawn()
    count = int(ours[name].sum())
    assert stats.binomtest(count, NUM_DRAWN, probability).pvalue > SMALLEST_P


def test_all_orders_of_the_colour_operations_are_equally_likely() -> None:
    ours, _ = _drawn()
    orders, counts = np.unique(ours["order"], axis=0, return_counts=True)
    assert len(orders) == 24
    assert stats.chisquare(counts).pvalue > SMALLEST_P


def test_what_is_drawn_for_an_image_is_independent() -> None:
    ours, _ = _drawn()
    names = ["jitter", "grey", "blur", "flip", "area", "ratio", "sigma", *OPERATIONS]
    table = np.corrcoef([ours[name] for name in names])
    apart = table[~np.eye(len(names), dtype=bool)]
    assert np.abs(apart).max() < 4 / np.sqrt(NUM_DRAWN)


def test_the_two_views_of_an_image_are_drawn_apart() -> None:
    generator = numpy_generator(0, "edge_views", 3, 0, 0)
    one, two = (
        pillow_views.draw_pillow_views(views_of(SETTINGS), generator, num_images=2, source=(32, 32))
        for _ in range(2)
    )
    assert one[0] != one[1] and one[0] != two[0]


def summaries(views: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    """Return what is compared of each view: a number for each of (R, 3, S, S)."""
    down, across = np.diff(views, axis=2), np.diff(views, axis=3)
    found = {f"mean of {c}": views[:, c].mean(axis=(1, 2)) for c in range(3)}
    found |= {f"std of {c}": views[:, c].std(axis=(1, 2)) for c in range(3)}
    found["gradients down"] = np.square(down).mean(axis=(1, 2, 3))
    found["gradients across"] = np.square(across).mean(axis=(1, 2, 3))
    found["colour"] = np.abs(views[:, 0] - views[:, 2]).mean(axis=(1, 2))
    found["smallest"], found["largest"] = views.min(axis=(1, 2, 3)), views.max(axis=(1, 2, 3))
    return found


@pytest.mark.slow
def test_whole_views_have_the_trainings_statistics() -> None:
    images = pictures(50).repeat(80, axis=0)
    drawn = draw_views(
        SETTINGS, torch.Generator().manual_seed(6), num_images=len(images), source_size=32
    )
    ours = summaries(draw_and_make(images, seed=6))
    theirs = summaries(torch_views(images, drawn, output_size=32))
    for name, values in ours.items():
        assert stats.ks_2samp(values, theirs[name]).pvalue > SMALLEST_P, name
        error = np.hypot(stats.sem(values), stats.sem(theirs[name]))
        assert abs(values.mean() - theirs[name].mean()) < 4 * error, name
