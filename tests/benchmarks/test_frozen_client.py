"""The benchmark of a client with a frozen head measures what it says."""

import json
from pathlib import Path

import pytest

from benchmarks import edge_memory


@pytest.mark.slow
def test_memory_bytes_and_speed_are_written(tmp_path: Path) -> None:
    small = ["--width", "8", "--steps", "4", "--repeats", "1", "--splits", "cut1_c4s2"]
    edge_memory.main([*small, "--out", str(tmp_path)])
    (run,) = json.loads((tmp_path / "edge_memory.json").read_text())["runs"]["cut1_c4s2"]
    assert 2**20 < run["python_bytes"] < run["imports_bytes"] < run["peak_bytes"] < 2**28
    assert run["working_bytes"] < run["peak_bytes"] - run["imports_bytes"]
    assert 0 < run["seconds_a_step"] < 1
    table = (tmp_path / "edge_memory.md").read_text()
    for published in ("| fp32 | 8,192 |", "| 78.1 | 39.1 |", "| 39.1 | - |", "| 19.5 | - |"):
        assert published in table
