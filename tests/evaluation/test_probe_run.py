"""Probes at the end of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from mocosfl.evaluation.probe_report import ProbeReport
from mocosfl.evaluation.probe_run import default_probe_config, log_probes, probe_run
from mocosfl.runs.evaluation_folders import ProbeFolder
from mocosfl.runs.folder import RunFolder
from mocosfl.training.run import train
from tests.support.configurations import Compose


@pytest.fixture
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = default_probe_config()
    settings.num_epochs, settings.embedding_map_images = 2, 10
    monkeypatch.setattr("mocosfl.evaluation.probe_run.default_probe_config", lambda: settings)


def test_defaults_are_those_of_the_command():
    config = default_probe_config()
    assert (config.num_epochs, config.batch_size, config.learning_rate) == (100, 128, 1e-3)
    assert config.label_fractions == [0.1, 0.01]


def test_run_probes_its_last_checkpoint_where_asked_for(compose_quick: Compose, short_probes: None):
    config = compose_quick(["trainer.max_steps=4", "callbacks.probe_at_end=true"])
    folder = RunFolder(Path(config.run_dir))
    train(config, folder, resume=False)
    results = json.loads((folder.probe / "results.json").read_text())
    assert results["encoder_step"] == 4
    assert results["encoder"] == str(folder.last)
    assert (folder.probe / "embedding_map.png").is_file()
    assert {"linear", "semi-supervised 10 %", "semi-supervised 1 %"} == set(results["probes"])


def test_run_does_not_probe_unless_asked_for(quick_run: RunFolder):
    assert not quick_run.probe.exists()


def test_neighbours_are_as_many_as_the_monitors_and_noted(run_copy: RunFolder, short_probes: None):
    probe_run(run_copy, run_copy.load_config())
    settings = json.loads((run_copy.probe / "results.json").read_text())["settings"]
    assert settings["knn_num_neighbors"] == 5
    assert settings["label_fractions"] == [0.1, 0.01]


def test_data_without_test_images_are_refused_before_training(
    compose_quick: Compose, tmp_path: Path
):
    config = compose_quick(
        ["callbacks.probe_at_end=true", "dataset.test_fraction=0", f"data_dir={tmp_path / 'data'}"]
    )
    folder = RunFolder(Path(config.run_dir))
    with pytest.raises(ValueError, match=r"has no test images .*callbacks\.probe_at_end=false"):
        train(config, folder, resume=False)
    assert not folder.config.exists()


def test_too_many_neighbours_are_refused_before_training(compose_quick: Compose):
    config = compose_quick(
        ["callbacks.probe_at_end=true", "callbacks.knn_every_rounds=0",
         "callbacks.knn_num_neighbors=5000"]
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"callbacks\.knn_num_neighbors=5000: .*1438.*probe_at_end"
    ):
        train(config, RunFolder(Path(config.run_dir)), resume=False)


def test_wandb_is_shown_the_map_where_the_probe_has_drawn_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compose_quick: Compose
):
    shown: list[Any] = []
    monkeypatch.setattr(
        "mocosfl.evaluation.probe_run.log_to_wandb", lambda *given: shown.append(given)
    )
    found = {"linear": {"per_class": {"cat": 0.5, "dog": None}}}
    (tmp_path / "results.json").write_text(json.dumps({"probes": found}))
    report = ProbeReport(0.25, [], 0.0, 0.0, "", None, 0.0, {})
    for drawn in (False, True):
        if drawn:
            ProbeFolder(tmp_path).embedding_map.write_bytes(b"PNG")
        log_probes(RunFolder(tmp_path), compose_quick([]), report, tmp_path, name="probe_best")
    (_, _, values, before, tables), (_, _, _, after, _) = shown
    assert values == {"probe_best/knn_top1": 0.25}
    drawn = {"probe_best/embedding_map": ProbeFolder(tmp_path).embedding_map}
    assert (before, after) == ({}, drawn)
    assert tables["probe_best/per_class"] == (["class", "linear"], [["cat", 0.5], ["dog", None]])
