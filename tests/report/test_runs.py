"""Runs as a report reads them, and where it finds them."""

import json
from pathlib import Path
from typing import Any

import pytest

from mocosfl.config.identity import FREE_KEYS
from mocosfl.report import runs as report_runs
from mocosfl.report.runs import find_runs, read_run
from mocosfl.runs.folder import RunFolder
from tests.support.written_runs import MB


def test_run_is_read_whole(write_run: Any, tmp_path: Path):
    folder = write_run(tmp_path / "a" / "b", ["clients=20", "method=monacosfl", "split=cut2_c4s2"])
    run = read_run(folder.path, tmp_path)
    assert (run.name, run.status, run.steps, run.planned_steps) == ("a/b", "finished", 1000, 1000)
    assert run.base() == {
        "method": "monacosfl", "dataset": "digits", "partition": "iid", "clients": 20,
        "cut": "2 C4S2",
    }  # fmt: skip
    assert run.results == {
        "knn_monitor": 0.4, "knn": 0.51, "linear": 0.5, "semi_10": 0.25, "semi_1": 0.125,
        "loss": 3.25, "true_bytes": 31 * MB, "paper_bytes": 2.5 * MB,
    }  # fmt: skip
    assert run.problems == ()


def test_real_run_is_read(quick_run: RunFolder):
    run = read_run(quick_run.path, quick_run.path)
    assert (run.steps, run.planned_steps) == (21, 21)
    assert run.results["knn_monitor"] is not None
    assert run.results["linear"] is None
    overhead = json.loads(quick_run.overhead.read_text())["mean_client"]
    assert run.results["true_bytes"] == overhead["up_bytes"] + overhead["down_bytes"]
    assert run.settings["method.name"] == "mocosfl"


def test_runs_are_found_at_any_depth_and_not_within_runs(write_run: Any, tmp_path: Path):
    for place in ("b", "a/x/y", "a/z"):
        folder = write_run(tmp_path / place)
    inside = folder.path / "wandb" / "files"
    inside.mkdir(parents=True)
    (inside / "config.yaml").write_text(folder.config.read_text())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("model: another program's\n")
    assert [run.name for run in find_runs(tmp_path)] == ["a/x/y", "a/z", "b"]


@pytest.mark.parametrize("steps", [300, 1000])
def test_run_has_finished_when_it_says_so_and_not_before(
    write_run: Any, tmp_path: Path, steps: int
):
    """The bytes are on disk before the probes at the end, which may take hours, or fail."""
    folder = write_run(tmp_path / "r", steps=steps, finished=False)
    assert read_run(folder.path, tmp_path).status == "interrupted"
    folder.failed.write_text("RuntimeError: no such luck\n")
    assert read_run(folder.path, tmp_path).status == "failed"
    folder.finished.write_text(json.dumps({"step": steps, "seconds": 9.0}))
    run = read_run(folder.path, tmp_path)
    assert (run.status, run.message) == ("finished", "")


def test_settings_without_influence_are_no_columns():
    ours = set(report_runs.NO_INFLUENCE)
    assert set(FREE_KEYS) <= ours
    assert "moco" not in ours


def test_probes_of_an_earlier_step_are_noticed(write_run: Any, tmp_path: Path):
    folder = write_run(tmp_path / "r")
    folder.finished.write_text(json.dumps({"step": 2000, "seconds": 1.0}))
    (problem,) = read_run(folder.path, tmp_path).problems
    assert problem == "r: probe/: is of step 1000, the run has done 2000"
