"""Every operation gives torchvision's numbers, with a parameter of its own for each image."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as torchvision_functional

from mocosfl.data import image_operations

NUM_IMAGES = 6


def _planes(*, size: int = 20) -> Tensor:
    """Random planes (3, R, size, size) that hold greys, blacks, whites and ties of channels too."""
    planes = torch.rand(3, NUM_IMAGES, size, size, generator=torch.Generator().manual_seed(3))
    planes[:, 0, :2] = 0.0
    planes[:, 0, 2:4] = 1.0
    planes[:, 1] = planes[:1, 1]
    planes[1, 2] = planes[0, 2]
    planes[2, 3] = planes[1, 3]
    planes[2, 4] = planes[0, 4]
    return planes


def _one_by_one(planes: Tensor, operation: Callable[..., Tensor], values: Tensor) -> Tensor:
    images = planes.transpose(0, 1)
    results = [operation(image, value.item()) for image, value in zip(images, values, strict=True)]
    return torch.stack(results).transpose(0, 1)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_factors_match_torchvision_image_by_image(name: str) -> None:
    planes = _planes()
    factors = torch.tensor([0.0, 0.6, 0.9, 1.0, 1.25, 1.4])
    result = getattr(image_operations, f"adjust_{name}")(planes, factors)
    reference = getattr(torchvision_functional, f"adjust_{name}")
    torch.testing.assert_close(result, _one_by_one(planes, reference, factors), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("turns", [[-0.5, -0.1, -0.03, 0.0, 0.07, 0.1], [0.5, 0.4, 0.3] * 2])
def test_hue_matches_torchvision_image_by_image(turns: list[float]) -> None:
    planes = _planes()
    result = image_operations.adjust_hue(planes, torch.tensor(turns))
    reference = _one_by_one(planes, torchvision_functional.adjust_hue, torch.tensor(turns))
    torch.testing.assert_close(result, reference, atol=3e-6, rtol=0.0)


def test_a_third_of_the_colour_circle_permutes_the_channels() -> None:
    planes = _planes()
    result = image_operations.adjust_hue(planes, torch.full((NUM_IMAGES,), 1 / 3))
    torch.testing.assert_close(result, planes.roll(1, dims=0), atol=1e-6, rtol=0.0)


def test_grey_matches_torchvision() -> None:
    planes = _planes()
    reference = torchvision_functional.rgb_to_grayscale(planes.transpose(0, 1), 3).transpose(0, 1)
    torch.testing.assert_close(image_operations.to_grey(planes), reference, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("size", [2, 8, 20])
def test_blur_matches_torchvision_image_by_image(size: int) -> None:
    planes = _planes(size=size)
    sigma = torch.tensor([0.1, 0.4, 0.8, 1.3, 1.7, 2.0])
    taps = 2 * size - 1
    reference = _one_by_one(
        planes,
        lambda image, value: torchvision_functional.gaussian_blur(image, [taps] * 2, [value] * 2),
        sigma,
    )
    result = image_operations.gaussian_blur(planes, sigma)
    torch.testing.assert_close(result, reference, atol=2e-6, rtol=0.0)


def test_blur_matrices_keep_a_constant_image() -> None:
    matrices = image_operations.blur_matrices(torch.tensor([0.1, 1.0, 5.0]), 8)
    torch.testing.assert_close(matrices.sum(dim=2), torch.ones(3, 8))


@pytest.mark.parametrize("output_size", [8, 24, 40])
def test_resize_matches_torchvision_when_shrinking_and_growing(output_size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8, generator=generator)
    # (R, 2) corners and sizes; whole image, one pixel, wide, tall, at the far corner
    corners = torch.tensor([[0, 0], [7, 31], [3, 1], [0, 20], [22, 19]])
    sizes = torch.tensor([[32, 32], [1, 1], [5, 30], [31, 9], [10, 13]])
    down, across = (
        image_operations.resize_matrices(
            corners[:, axis], sizes[:, axis], source_size=32, output_size=output_size
        )
        for axis in (0, 1)
    )
    result = image_operations.resize(images, down, across).transpose(0, 1)
    for row, image in enumerate(images.float() / 255.0):
        reference = torchvision_functional.resized_crop(
            image, *corners[row].tolist(), *sizes[row].tolist(), [output_size] * 2, antialias=True
        )
        torch.testing.assert_close(result[row], reference, atol=3e-6, rtol=0.0)


def test_no_operation_writes_to_its_input() -> None:
    planes = _planes()
    before = planes.clone()
    values = torch.full((NUM_IMAGES,), 0.3)
    for name in ("brightness", "contrast", "saturation", "hue"):
        getattr(image_operations, f"adjust_{name}")(planes, values)
    image_operations.gaussian_blur(planes, values)
    image_operations.to_grey(planes)
    assert torch.equal(planes, before)
