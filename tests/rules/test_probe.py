"""Each rule about a probe has a case that breaks it."""

from functools import lru_cache
from typing import cast

import pytest
from omegaconf import DictConfig

from mocosfl.config.hydra_setup import compose_file
from mocosfl.config.probe import ProbeConfig
from mocosfl.rules.probe import validate_probe


@lru_cache
def composed(*overrides: str) -> DictConfig:
    return compose_file("linear_probe", overrides)


def problems(*overrides: str) -> list[str]:
    try:
        validate_probe(cast(ProbeConfig, composed(*overrides)))
    except ValueError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=-1", "seed=-1: must be at least 0"),
        ("num_epochs=0", "num_epochs=0: must be at least 1"),
        ("batch_size=1", "batch_size=1: must be at least 2"),
        ("hidden_dim=0", "hidden_dim=0: must be at least 1"),
        ("extract_batch_size=0", "extract_batch_size=0: must be at least 1"),
        ("knn_num_neighbors=0", "knn_num_neighbors=0: must be at least 1"),
        ("learning_rate=0", "learning_rate=0.0: must be above 0"),
        ("knn_temperature=0", "knn_temperature=0.0: must be above 0"),
        ("embedding_map_images=-1", "embedding_map_images=-1: must be 0 (no map) or at least 10"),
        ("embedding_map_images=9", "embedding_map_images=9: must be 0 (no map) or at least 10"),
        ("label_fractions=[1.5]", "label_fractions=[1.5]: each above 0 and at most 1"),
        ("which=first", "which=first: choose last or best"),
        ("accelerator=tpu", "accelerator=tpu: unknown"),
        ("run=x", "run=x: is only read with checkpoint=none; leave it out"),
    ],
)
def test_setting_out_of_bounds_is_named(override: str, words: str):
    (line,) = problems("checkpoint=x", override)
    assert line.startswith(words)


def test_bounds_themselves_are_good():
    assert problems("checkpoint=x", "embedding_map_images=0") == []
    assert problems("checkpoint=none", "run=x", "embedding_map_images=10") == []


def test_nothing_to_probe_asks_for_a_checkpoint_beside_other_mistakes():
    first, second = problems("run=x", "seed=-1")
    assert first.startswith("seed=-1")
    assert second.startswith("checkpoint=???: name what to probe, checkpoint=<run")


def test_no_checkpoint_asks_for_a_run():
    (line,) = problems("checkpoint=none")
    assert line.startswith("checkpoint=none: name the run whose untrained encoder to probe, run=")
