"""Views: the distribution of the draws, and a row's independence of the other rows."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as torchvision_functional

from mocosfl.data import augmentation
from mocosfl.data.augmentation import ViewParameters, ViewSettings
from tests.support.view_settings import MEAN, SETTINGS, STD, STILL, draw_views


def _images(num_images: int, *, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    shape = (num_images, 3, size, size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def _draw(
    num_images: int, *, settings: ViewSettings = SETTINGS, seed: int = 0, size: int = 32
) -> ViewParameters:
    generator = torch.Generator().manual_seed(seed)
    return draw_views(settings, generator, num_images=num_images, source_size=size)


def _make(images: Tensor, parameters: ViewParameters, *, output_size: int = 32) -> Tensor:
    return augmentation.make_views(images, parameters, output_size=output_size, mean=MEAN, std=STD)


def _torchvision_view(image: Tensor, parameters: ViewParameters, *, output_size: int) -> Tensor:
    """The same view, one operation of torchvision after the other; `parameters` of one row."""
    functional = torchvision_functional
    adjust = [functional.adjust_brightness, functional.adjust_contrast]
    adjust += [functional.adjust_saturation, functional.adjust_hue]
    box = [int(value) for value in parameters[:4]]
    view = functional.resized_crop(image / 255.0, *box, [output_size] * 2, antialias=True)
    if parameters.jitter:
        for operation in parameters.order.tolist():
            view = adjust[operation](view, parameters.factors[operation].item())
    if parameters.grey:
        view = functional.rgb_to_grayscale(view, 3)
    if parameters.blur:
        sigma = [parameters.sigma.item()] * 2
        view = functional.gaussian_blur(view, [2 * output_size - 1] * 2, sigma)
    if parameters.flip:
        view = functional.hflip(view)
    return functional.normalize(view, list(MEAN), list(STD))


@pytest.mark.parametrize("output_size", [8, 32])
def test_views_match_torchvision_operation_by_operation(output_size: int) -> None:
    images, parameters = _images(40), _draw(40)
    views = _make(images, parameters, output_size=output_size)
    for row in range(40):
        own = ViewParameters(*(field[row] for field in parameters))
        reference = _torchvision_view(images[row], own, output_size=output_size)
        torch.testing.assert_close(views[row], reference, atol=5e-5, rtol=0.0)


def test_still_settings_only_normalise() -> None:
    images = _images(5)
    views = _make(images, _draw(5, settings=STILL))
    reference = torchvision_functional.normalize(images / 255.0, list(MEAN), list(STD))
    torch.testing.assert_close(views, reference, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("size", [8, 28, 32])
def test_bits_of_a_row_do_not_depend_on_its_block(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, parameters = _images(64, size=size), _draw(64, size=size)
    whole = _make(images, parameters, output_size=size)
    for block in (1, 7, 16):
        starts = range(0, 64, block)
        rows = [slice(start, start + block) for start in starts]
        parts = [_make(images[r], parameters.select(r), output_size=size) for r in rows]
        assert torch.equal(torch.cat(parts), whole)
    monkeypatch.setattr(augmentation, "_CPU_BLOCK_ELEMENTS", 5 * 3 * size**2)
    assert torch.equal(_make(images, parameters, output_size=size), whole)


def test_permuting_the_rows_permutes_the_views() -> None:
    images, parameters = _images(32), _draw(32)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    permuted = _make(images[order], parameters.select(order))
    assert torch.equal(permuted, _make(images, parameters)[order])


def test_equal_images_get_different_views() -> None:
    images = _images(1).expand(8, -1, -1, -1)
    views = _make(images, _draw(8)).flatten(1)
    assert torch.cdist(views, views).fill_diagonal_(1e9).min() > 1.0


def test_draws_are_a_function_of_the_seed_only() -> None:
    torch.manual_seed(1)
    first = _draw(10, seed=5)
    torch.manual_seed(2)
    second = _draw(10, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.factors, _draw(10, seed=6).factors)


def test_drawing_row_by_row_equals_drawing_the_block() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [draw_views(SETTINGS, generator, num_images=1, source_size=32) for _ in range(12)]
    for parts, field in zip(zip(*rows, strict=True), _draw(12), strict=True):
        assert torch.equal(torch.cat(parts), field)


def test_frequencies_and_ranges_of_the_draws() -> None:
    draws = _draw(20_000)
    for wanted, probability in (
        (draws.jitter, 0.8),
        (draws.grey, 0.2),
        (draws.blur, 0.5),
        (draws.flip, 0.5),
    ):
        assert wanted.float().mean().item() == pytest.approx(probability, abs=0.02)
    low = torch.tensor([0.6, 0.6, 0.6, -0.1])
    high = torch.tensor([1.4, 1.4, 1.4, 0.1])
    assert ((draws.factors >= low) & (draws.factors <= high)).all()
    torch.testing.assert_close(draws.factors.mean(0), (low + high) / 2, atol=0.01, rtol=0.0)
    assert draws.sigma.min() >= 0.1 and draws.sigma.max() <= 2.0
    assert draws.sigma.mean().item() == pytest.approx(1.05, abs=0.02)


def test_all_24_orders_of_the_colour_operations_are_equally_frequent() -> None:
    _, counts = torch.unique(_draw(24_000).order, dim=0, return_counts=True)
    assert len(counts) == 24
    assert counts.min() > 850 and counts.max() < 1150  # 1000 +- 5 standard deviations


def test_crops_fit_and_reach_every_border() -> None:
    draws = _draw(20_000)
    bottom, right = draws.top + draws.height, draws.left + draws.width
    for low, high in ((draws.top, bottom), (draws.left, right)):
        assert low.min() == 0 and high.max() == 32 and (high > low).all()
    area = draws.height * draws.width / 32**2
    assert 0.06 < area.min() < 0.1 and area.max() == 1.0
    ratio = draws.width / draws.height
    assert ratio.min() > 0.65 and ratio.max() < 1.5  # 3/4 to 4/3, with sides rounded to pixels
    assert ratio.log().mean().item() == pytest.approx(0.0, abs=0.01)


def test_distribution_of_crop_sizes_is_torchvisions() -> None:
    from torchvision.transforms.v2 import RandomResizedCrop

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = RandomResizedCrop(32, scale=(0.08, 1.0))
        image = torch.empty(3, 32, 32)
        crops = [reference.make_params([image]) for _ in range(4000)]
    draws = _draw(40_000)
    for name in ("top", "left", "height", "width"):
        expected = torch.tensor([float(crop[name]) for crop in crops])
        drawn = getattr(draws, name).float()
        assert drawn.mean().item() == pytest.approx(expected.mean().item(), abs=0.5)
        assert drawn.std().item() == pytest.approx(expected.std().item(), abs=0.4)


def test_fallback_is_the_centred_crop_of_the_nearest_ratio() -> None:
    wide = replace(SETTINGS, crop_scale_min=1.0, ratio_min=2.0, ratio_max=3.0)
    draws = _draw(3, settings=wide)  # a whole area twice as wide as high never fits
    assert draws.height.tolist() == [16] * 3 and draws.width.tolist() == [32] * 3
    assert draws.top.tolist() == [8] * 3 and draws.left.tolist() == [0] * 3


def test_images_are_left_as_they_are() -> None:
    images = _images(16)
    before = images.clone()
    _make(images, _draw(16))
    assert torch.equal(images, before)


def test_views_are_mostly_within_the_normalised_range() -> None:
    views = _make(_images(64), _draw(64))
    low = min((0.0 - m) / s for m, s in zip(MEAN, STD, strict=True))
    high = max((1.0 - m) / s for m, s in zip(MEAN, STD, strict=True))
    assert views.isfinite().all() and views.min() > low - 1e-4 and views.max() < high + 1e-4


def test_no_image_gives_no_view() -> None:
    assert _make(_images(0), _draw(0)).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (_images(4).float(), "uint8 expected"),
        (_images(4)[:, 0], "uint8 expected"),
        (_images(3), "4 rows of parameters for 3 images"),
        (_images(4, size=16), "wrong source_size"),
    ],
)
def test_images_that_do_not_fit_are_refused(images: Tensor, message: str) -> None:
    parameters = _draw(4, settings=STILL)
    with pytest.raises(ValueError, match=message):
        _make(images, parameters)


def _sized(sizes: list[tuple[int, int]], settings: ViewSettings = SETTINGS) -> ViewParameters:
    uniforms = augmentation.draw_uniforms(torch.Generator().manual_seed(0), len(sizes))
    return augmentation.parameters_from_uniforms(
        settings, uniforms, source_size=torch.tensor(sizes)
    )


def test_square_sizes_image_by_image_draw_what_one_size_draws() -> None:
    for side in (8, 28, 32, 224):
        own = _sized([(side, side)] * 500)
        for field, reference in zip(own, _draw(500, size=side), strict=True):
            assert torch.equal(field, reference)


def test_crops_of_any_shape_of_image_stay_inside_it_and_cover_the_drawn_area() -> None:
    sizes = [(300, 200), (90, 400), (64, 64), (375, 500)] * 1000
    own = _sized(sizes)
    height, width = torch.tensor(sizes).unbind(1)
    assert bool(((own.top >= 0) & (own.top + own.height <= height)).all())
    assert bool(((own.left >= 0) & (own.left + own.width <= width)).all())
    fraction = (own.height * own.width / (height * width)).reshape(-1, 4)
    assert fraction.min().item() > 0.07
    # Uniform from 0.08 to 1 less what does not fit; of a quarter as high as wide little fits.
    assert fraction[:, 2:].mean().item() == pytest.approx(0.45, abs=0.05)


@pytest.mark.parametrize(
    ("size", "crop"),
    [((100, 400), (100, 133)), ((400, 100), (133, 100)), ((100, 120), (100, 120))],
)
def test_fallback_is_the_largest_centred_crop_of_the_nearest_ratio(
    size: tuple[int, int], crop: tuple[int, int]
) -> None:
    own = _sized([size], replace(SETTINGS, crop_scale_min=1.0))  # no try fits but by luck
    height, width = crop
    assert (own.height.item(), own.width.item()) == crop
    assert own.top.item() == (size[0] - height) // 2
    assert own.left.item() == (size[1] - width) // 2
