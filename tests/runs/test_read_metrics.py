"""A file of metrics that is not there has no rows; a damaged one is named."""

from pathlib import Path

import pytest

from mocosfl.runs.json_records import DamagedFile
from mocosfl.runs.read_metrics import read_curves, read_metrics


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "metrics.csv"


def test_file_that_is_not_there_has_no_rows(path: Path):
    assert read_metrics(path) == []
    assert read_curves(path) == {}


def test_damaged_file_is_named(path: Path):
    path.parent.mkdir()
    path.write_bytes(b'step,loss\n1,"' + b"x" * 200_000)
    with pytest.raises(DamagedFile, match=r"metrics\.csv: not readable \(Error\)"):
        read_metrics(path)
