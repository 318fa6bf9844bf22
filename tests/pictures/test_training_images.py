"""Pictures of images: readable, of a sensible size, not blank, for few and for many clients."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mocosfl.pictures.training_images import draw_partition, draw_view_pairs
from tests.support.picture_checks import check_picture


@pytest.mark.parametrize(("num_clients", "num_classes"), [(1, 2), (5, 10), (10_000, 100)])
def test_partition_is_drawn_for_few_and_many_clients(
    num_clients: int, num_classes: int, tmp_path: Path
) -> None:
    counts = np.random.default_rng(0).integers(0, 9, size=(num_clients, num_classes))
    counts[0, 0] = 9
    names = [f"class {label}" for label in range(num_classes)]
    draw_partition(counts, names, tmp_path / "partition.png")
    check_picture(tmp_path / "partition.png")


def test_partition_shows_who_holds_what(tmp_path: Path) -> None:
    first = np.array([[50, 0], [0, 50]])
    draw_partition(first, ["a", "b"], tmp_path / "first.png")
    draw_partition(first[::-1], ["a", "b"], tmp_path / "second.png")
    left, right = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("first", "second"))
    assert left.shape == right.shape and (left != right).any()


@pytest.mark.parametrize("num_images", [1, 12])
def test_views_are_drawn_in_their_own_colours(num_images: int, tmp_path: Path) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
    images, *views = (colour[None, :, None, None].expand(num_images, 3, 8, 8) for colour in colours)
    centre, scale = (torch.tensor(values)[:, None, None] for values in (mean, std))
    view1, view2 = ((view / 255.0 - centre) / scale for view in views)
    path = tmp_path / "views.png"
    draw_view_pairs(images, view1, view2, mean=mean, std=std, path=path)
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    for colour in colours.numpy():
        assert (pixels == colour).all(axis=1).sum() > 1000 * num_images
