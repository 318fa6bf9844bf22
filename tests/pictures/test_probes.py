"""Pictures of a probe: readable, of a sensible size, not blank, for few and for many classes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mocosfl.pictures.probes import draw_embedding_map, draw_per_class
from tests.support.picture_checks import check_picture


@pytest.mark.parametrize("num_classes", [2, 10, 100, 201])
def test_accuracies_are_drawn_for_few_and_many_classes(num_classes: int, tmp_path: Path) -> None:
    values = torch.linspace(0.0, 1.0, num_classes)
    values[0] = torch.nan
    per_class = {"linear": values, "semi-supervised 1 %": values.flip(0)}
    names = [f"class {label}" for label in range(num_classes)]
    draw_per_class(per_class, names, tmp_path / "classes.png")
    check_picture(tmp_path / "classes.png")


def test_no_probe_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="per_class: nothing to draw"):
        draw_per_class({}, ["a"], tmp_path / "classes.png")


@pytest.mark.parametrize("num_classes", [1, 10, 20, 100])
def test_embedding_map_is_drawn_for_few_and_many_classes(num_classes: int, tmp_path: Path) -> None:
    places = np.random.default_rng(1).normal(size=(400, 2))
    labels = np.arange(400) % num_classes
    names = [f"class {label}" for label in range(num_classes)]
    draw_embedding_map(places, labels, names, tmp_path / "map.png")
    check_picture(tmp_path / "map.png")
