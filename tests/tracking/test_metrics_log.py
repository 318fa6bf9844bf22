"""Each row of metrics is on the disk at once, and a resumed log drops the steps to come."""

import os
from pathlib import Path

import pytest

from mocosfl.runs.json_records import DamagedFile
from mocosfl.runs.read_metrics import read_curves, read_metrics
from mocosfl.tracking.metrics_log import MetricsLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "metrics.csv"


def test_damaged_file_is_not_continued(path: Path):
    path.parent.mkdir()
    path.write_bytes(b'step,loss\n1,"' + b"x" * 200_000)
    with pytest.raises(DamagedFile, match=r"metrics\.csv: not readable"):
        MetricsLog(path)


def test_every_row_is_on_disk_as_soon_as_it_is_logged(path: Path):
    log = MetricsLog(path)
    for step in range(3):
        log.log_metrics({"loss": step / 3}, step)
        assert path.read_text().splitlines()[-1] == f"{step},{step / 3:.9g}"


def test_calls_at_one_step_share_a_row(path: Path):
    log = MetricsLog(path)
    log.log_metrics({"loss": 1.0}, 4)
    log.log_metrics({"knn": 0.5}, 4)
    assert read_metrics(path) == [{"step": "4", "loss": "1", "knn": "0.5"}]


def test_column_that_comes_later_leaves_gaps_before(path: Path):
    log = MetricsLog(path)
    log.log_metrics({"loss": 1.0}, 0)
    log.log_metrics({"loss": 2.0, "knn": 0.5}, 1)
    log.log_metrics({"loss": 3.0}, 2)
    assert path.read_text().splitlines() == ["step,loss,knn", "0,1,", "1,2,0.5", "2,3,"]
    assert read_curves(path) == {"loss": ([0, 1, 2], [1, 2, 3]), "knn": ([1], [0.5])}


def test_single_precision_survives_the_text(path: Path):
    import numpy as np

    value = float(np.float32(0.1))
    MetricsLog(path).log_metrics({"loss": value}, 0)
    assert np.float32(read_curves(path)["loss"][1][0]) == np.float32(value)


def test_lightnings_epoch_is_left_out(path: Path):
    MetricsLog(path).log_metrics({"epoch": 0.0}, 0)
    assert not path.exists()


def test_continued_log_drops_the_step_to_come_and_later_ones(path: Path):
    first = MetricsLog(path)
    for step in range(5):
        first.log_metrics({"loss": float(step)}, step)
    second = MetricsLog(path)
    second.continue_from(3)
    second.log_metrics({"loss": 30.0}, 3)
    assert read_curves(path) == {"loss": ([0, 1, 2, 3], [0, 1, 2, 30])}


def test_log_opened_again_keeps_its_columns_and_their_order(path: Path):
    first = MetricsLog(path)
    first.log_metrics({"loss": 1.0, "knn": 0.5}, 0)
    second = MetricsLog(path)
    second.log_metrics({"knn": 0.6}, 1)
    assert path.read_text().splitlines() == ["step,loss,knn", "0,1,0.5", "1,,0.6"]


def test_fresh_run_has_no_row_left_after_continuing_from_the_start(path: Path):
    log = MetricsLog(path)
    log.log_metrics({"loss": 1.0}, 0)
    log.continue_from(0)
    assert read_metrics(path) == []
    assert [file.name for file in path.parent.iterdir()] == ["metrics.csv"]


def test_failing_rewrite_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch):
    log = MetricsLog(path)
    log.log_metrics({"loss": 1.0}, 0)
    before = path.read_text()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        log.log_metrics({"loss": 2.0, "knn": 0.5}, 1)
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]
