"""The map of the test images: alike lies close, few images and a collapsed encoder work."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from mocosfl.config.hydra_setup import CONF
from mocosfl.config.probe import ProbeConfig
from mocosfl.evaluation.embedding_map import EmbeddingMap, map_features, write_map
from mocosfl.evaluation.probes import LabelledFeatures
from mocosfl.rules.probe import validate_probe


def _three_classes(number: int) -> LabelledFeatures:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(number) % 3
    centres = torch.eye(8)[:3]
    return LabelledFeatures(
        centres[labels] + 0.05 * torch.randn(number, 8, generator=generator), labels
    )


def _probe_config(*overrides: str) -> ProbeConfig:
    with initialize_config_dir(str(CONF), version_base=None):
        return compose("linear_probe", ["checkpoint=x", *overrides])  # type: ignore[return-value]


def test_images_of_one_class_lie_together():
    found = map_features(_three_classes(60), num_images=1000, seed=1)
    assert found is not None
    assert (found.indices == np.arange(60)).all() and found.places.shape == (60, 2)
    apart = np.linalg.norm(found.places[:, None] - found.places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (found.labels[apart.argmin(axis=1)] == found.labels).all()


def test_map_of_a_sample_is_the_same_each_time_and_knows_its_images():
    test = _three_classes(90)
    maps = [map_features(test, num_images=30, seed=seed) for seed in (1, 1, 2)]
    one, same, other = (found for found in maps if found is not None)
    assert len(set(one.indices.tolist())) == 30 and one.indices.max() > 30
    assert (one.labels == test.labels.numpy()[one.indices]).all()
    assert (one.indices == same.indices).all() and (one.places == same.places).all()
    assert not np.array_equal(one.indices, other.indices)


@pytest.mark.parametrize(
    ("number", "asked", "drawn"), [(9, 2000, False), (10, 2000, True), (50, 0, False)]
)
def test_few_images_make_a_map_and_none_below_ten(number: int, asked: int, drawn: bool):
    found = map_features(_three_classes(number), num_images=asked, seed=1)
    assert (found is not None) == drawn
    assert found is None or np.isfinite(found.places).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_collapsed_encoder_has_a_map_too(value: float):
    features = torch.full((20, 8), value)
    found = map_features(LabelledFeatures(features, torch.arange(20)), num_images=20, seed=1)
    assert found is not None and np.isfinite(found.places).all()


def test_files_tell_each_images_place_and_class_and_go_with_the_map(tmp_path: Path):
    places = np.array([[1.0, 2.0], [3.0, -4.0]], dtype=np.float32)
    found = EmbeddingMap(np.array([5, 9]), places, np.array([1, 0]))
    write_map(found, ["cat, big", "dog"], tmp_path)
    rows = list(csv.DictReader((tmp_path / "embedding_map.csv").read_text().splitlines()))
    assert rows == [
        {"image": "5", "x": "1.0000", "y": "2.0000", "class": "dog"},
        {"image": "9", "x": "3.0000", "y": "-4.0000", "class": "cat, big"},
    ]
    assert (tmp_path / "embedding_map.png").is_file()
    write_map(None, ["cat, big", "dog"], tmp_path)  # a later probe without one
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [-1, 9])
def test_too_few_images_asked_for_are_refused(number: int):
    with pytest.raises(ValueError, match=rf"embedding_map_images={number}: must be 0 .* least 10"):
        validate_probe(_probe_config(f"embedding_map_images={number}"))
    validate_probe(_probe_config("embedding_map_images=0"))
    validate_probe(_probe_config("embedding_map_images=10"))
