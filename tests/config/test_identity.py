"""What makes two runs one, and the folder of a job that follows from it."""

import os
from typing import cast

import pytest
from omegaconf import DictConfig

from mocosfl.config.identity import digest, move_data
from mocosfl.runs.folder import RunFolder
from tests.support.configurations import Compose, changed, composed_with_hydra


def folder_of(*overrides: str) -> str:
    """Return the name of the folder of a job with these overrides."""
    return str(composed_with_hydra(overrides).hydra.sweep.subdir)


def test_job_folder_says_the_settings_and_ends_with_their_hash():
    name = folder_of("clients=20", "split=cut2", "partition=shards")
    assert name.startswith("digits_mocosfl_shards_n20_cut2_")
    assert len(name.rpartition("_")[2]) == 8
    assert "_whole_" in folder_of("method=fl_moco")


def test_job_folder_depends_on_settings_alone():
    plain = folder_of("seed=1")
    assert folder_of("notes=x", "seed=1", "sweep_name=y", "output_dir=z", "logger=csv") == plain
    assert folder_of("launcher=joblib", "seed=1") == plain
    assert folder_of("seed=2") != plain
    assert folder_of("seed=1", "optimizer.server_lr=0.05") != plain


def test_cut_makes_no_difference_to_a_method_without_one():
    assert folder_of("method=fl_moco", "split=cut1") == folder_of("method=fl_moco", "split=cut2")


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset=image_folder"],  # its classes are for the user to give
        ["clients=published", "clients.num_clients=0"],  # refused by a resolver of ours
        ["split.cut_layer=null"],
    ],
    ids=str,
)
def test_job_that_cannot_be_has_a_folder_all_the_same(overrides: list[str]):
    assert folder_of(*overrides) != folder_of(*overrides, "seed=5")


def test_job_folder_stays_a_file_name_whatever_the_data_set_is_called():
    name = folder_of(f"dataset.name={'a/b' * 200}")
    assert len(os.fsencode(name)) < 255
    assert "/" not in name


def test_saved_configuration_has_the_hash_of_the_composed_one(
    compose_quick: Compose, quick_run: RunFolder
):
    composed, saved = compose_quick([]), quick_run.load_config()
    assert digest(composed) == digest(saved)  # type: ignore[arg-type]
    other = changed(saved, {"moco.temperature": 0.2})
    assert digest(composed) != digest(other)  # type: ignore[arg-type]


def test_auxiliary_images_move_with_the_data(compose_quick: Compose):
    expert = ["taressfl=expert", "dataset@taressfl.auxiliary=arrays", "data_dir=here"]
    config = compose_quick([*expert, "taressfl.auxiliary.path=here/birds"])
    assert config.taressfl.auxiliary is not None
    digests = [digest(cast(DictConfig, config))]
    move_data(config, "there")
    assert (config.data_dir, config.taressfl.auxiliary.path) == ("there", "there/birds")
    digests.append(digest(cast(DictConfig, config)))
    config.taressfl.auxiliary.path = "elsewhere/birds"  # not below data_dir: another place
    digests.append(digest(cast(DictConfig, config)))
    assert digests[0] == digests[1] != digests[2]
