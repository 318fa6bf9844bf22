"""The dashboard: made offline, and of names that are logged."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mocosfl import dashboard
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves
from mocosfl.tracking import wandb_run
from mocosfl.tracking.wandb_labels import flat_settings
from mocosfl.tracking.wandb_run import best_values, overhead_values


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What would be saved, made with no network to ask."""

    def refuse(*_: Any) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    file = tmp_path / "layout.json"
    dashboard.main(["--entity", "team", "--project", "birds", "--layout", str(file)])
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def named(part: Any) -> Iterator[str]:
    """Yield the names of curves, summary values and media that panels draw."""
    if isinstance(part, dict):
        for inner in part.values():
            yield from named(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from named(inner)
    elif isinstance(part, str) and re.fullmatch(r"(summary:)?[a-z]+/\w+", part):
        yield part.removeprefix("summary:")


def test_dashboard_is_of_the_project_that_was_named(layout: dict[str, Any]):
    assert (layout["entity"], layout["project"]) == ("team", "birds")
    sections = layout["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [
        "Accuracy", "Training", "Data and probes", "Privacy", "What a client costs",
    ]  # fmt: skip
    assert all(section["panels"] for section in sections)


def test_panels_name_only_what_is_logged(layout: dict[str, Any], quick_run: RunFolder):
    logged = set(read_curves(quick_run.metrics)) | set(wandb_run.start_pictures(quick_run))
    logged |= set(best_values(quick_run)) | set(overhead_values(quick_run))
    logged |= {  # what other runs log: see probe_run, attack and the callbacks
        "probe/linear_top1_final", "probe/per_class", "probe/per_class_picture",
        "probe/embedding_map", "attack/decoder_ssim", "attack/reconstructions",
        "privacy/attacker_ssim", "privacy/reconstructions",
    }  # fmt: skip
    names = set(named(layout["spec"]))
    assert names - logged == set()
    assert {"val/knn_top1", "sync/divergence_mean", "overhead/client_bytes"} <= names
    assert layout["spec"]["section"]["settings"]["xAxis"] == wandb_run.X_AXIS


def test_settings_in_panels_and_columns_are_those_of_the_runs(
    layout: dict[str, Any], quick_run: RunFolder
):
    settings = set(flat_settings(quick_run.load_config()))
    text = json.dumps(layout)
    grouped = re.findall(r'"groupBy": "(\w+)\.value"', text)
    named_settings = {*grouped, *re.findall(r'"config:(\w+)', text)}
    assert {"clients", "cut_layer", "method"} <= named_settings <= settings


@pytest.mark.parametrize("place", ["folder", "file/layout.json"])
def test_a_layout_that_cannot_be_written_is_told_in_words(tmp_path: Path, place: str):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SystemExit, match=r"--layout=.*: cannot be written \(.*; name another"):
        dashboard.main(["--entity", "team", "--layout", str(tmp_path / place)])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]


def test_without_an_account_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse(_: Any) -> None:
        raise ValueError("no key")

    monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.save_as_new_view", refuse)
    with pytest.raises(SystemExit, match=r"W&B refuses \(no key\); run `wandb login`"):
        dashboard.main(["--entity", "team"])
