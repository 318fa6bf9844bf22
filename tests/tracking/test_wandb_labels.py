"""What a run is found by in W&B."""

from pathlib import Path
from typing import Any

import pytest

from mocosfl.runs.folder import RunFolder
from mocosfl.tracking import wandb_labels
from mocosfl.tracking.wandb_labels import Labels, flat_settings, label
from tests.support.configurations import Compose


@pytest.fixture
def labelled(compose_quick: Compose) -> Any:
    def labels(*overrides: str) -> Labels:
        config = compose_quick(overrides)
        return label(config, RunFolder(Path("/home/me/multirun/a_run")), "0a1b2c3d")

    return labels


def test_name_says_the_settings_and_ends_with_the_id(labelled: Any):
    assert labelled("split=cut2").name == "digits_mocosfl_shards_n100_cut2_0a1b2c3d"
    assert labelled("method=fl_moco").name == "digits_fl_moco_shards_n100_whole_0a1b2c3d"


def test_settings_have_numbers_and_names_of_the_command_line(labelled: Any):
    settings = labelled("clients.num_clients=200", "split=cut2_c4s2").settings
    shown = {
        "method": "mocosfl", "dataset": "digits", "partition": "shards", "classes_per_client": 2,
        "clients": 200, "pool_size": 12, "batch_size": 2, "rounds": 3, "cut_layer": 2,
        "bottleneck": "C4S2", "backbone": "resnet18", "width": 4, "taressfl": "off", "seed": 1234,
    }  # fmt: skip
    assert {key: settings[key] for key in shown} == shown
    assert settings["config"]["clients"]["num_clients"] == 200
    assert settings["folder"] == "a_run"


def test_partition_says_what_it_reads_alone(compose_quick: Compose):
    assert "alpha" not in flat_settings(compose_quick([]))
    settings = flat_settings(compose_quick(["partition=dirichlet", "partition.alpha=0.1"]))
    assert settings["alpha"] == 0.1
    assert "classes_per_client" not in settings


def test_whole_network_has_no_cut(compose_quick: Compose):
    settings = flat_settings(compose_quick(["method=fl_moco"]))
    assert settings["cut_layer"] is None
    assert settings["bottleneck"] == "none"


def test_places_on_the_machine_stay_there(labelled: Any, data_dir: Path, tmp_path: Path):
    settings = labelled(
        f"dataset.path={data_dir}/birds", "taressfl.expert=/home/me/expert", "notes=see /home/me"
    ).settings
    nested = settings["config"]
    assert not {"run_dir", "output_dir", "data_dir", "logger", "resume"} & set(nested)
    assert nested["dataset"]["path"] == "${data_dir}/birds"
    assert nested["taressfl"]["expert"] == "expert"
    assert str(tmp_path) not in str(settings)
    assert str(data_dir) not in str(settings)


def test_group_is_the_one_asked_for_or_the_sweep(labelled: Any, monkeypatch: pytest.MonkeyPatch):
    assert labelled("sweep_name=depth").group is None  # a single run is in no sweep
    monkeypatch.setattr(wandb_labels, "in_sweep", lambda: True)
    assert labelled("sweep_name=depth").group == "depth"
    assert labelled("sweep_name=depth", "logger.wandb_group=mine").group == "mine"


def test_tags_name_the_experiment_and_what_was_only_tried(
    labelled: Any, monkeypatch: pytest.MonkeyPatch
):
    assert labelled().tags == ["digits", "mocosfl", "shards", "cut1", "n100"]
    choices = {"experiment": "table3", "debug": "short"}
    monkeypatch.setattr(wandb_labels, "chosen", choices.get)
    assert labelled().tags[-2:] == ["table3", "debug"]
    assert labelled().settings["experiment"] == "table3"


def test_tags_are_as_short_as_wandb_wants_them_and_differ(labelled: Any):
    tags = labelled("dataset.name=" + 70 * "x", "split.cut_layer=3").tags
    assert max(map(len, tags)) == 64
    assert len(set(labelled("dataset.name=mocosfl").tags)) == 4
