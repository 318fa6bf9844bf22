"""The table of a report: its rows and columns."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mocosfl.report.bytes_so_far import with_overhead
from mocosfl.report.runs import find_runs, read_run
from mocosfl.report.table import group_seeds, rows_of, varying
from mocosfl.runs.folder import RunFolder
from tests.support.configurations import changed


def test_results_of_a_finished_run_are_those_of_its_end_and_bare(write_run: Any, tmp_path: Path):
    runs = [read_run(write_run(tmp_path / "r", monitor=None).path, tmp_path)]
    (row,) = rows_of(runs, varying(runs))
    assert (row["kNN monitor (training images)"], row["linear"]) == ("10.00", "50.00")
    (row,) = rows_of([replace(runs[0], status="interrupted")], varying(runs))
    assert row["kNN monitor (training images)"] == "10.00 (after 1)"
    assert row["linear"] == "50.00 (after 1,000)"
    assert row["MB a client, true"] == "31.00"


def test_columns_are_what_varies(write_run: Any, tmp_path: Path):
    for number, temperature in enumerate((0.1, 0.2)):
        for method in ("mocosfl", "monacosfl"):
            write_run(
                tmp_path / f"{number}{method}",
                [f"method={method}", f"moco.temperature={temperature}", f"notes=n{number}"],
            )
    runs = find_runs(tmp_path)
    columns = varying(runs)
    assert columns.shown == ["moco.temperature"]
    assert columns.implied == ["moco.symmetric"]  # go with the method
    assert [row["moco.temperature"] for row in rows_of(runs, columns)] == ["0.1"] * 2 + ["0.2"] * 2


def test_settings_that_differ_far_behind_are_told_apart(write_run: Any, tmp_path: Path):
    for number in (1, 2):
        overrides = [f"moco.temperature=0.1000000{number}", f"seed={number}"]
        write_run(tmp_path / f"{number}", overrides)
    runs = find_runs(tmp_path)
    assert varying(runs).shown == ["moco.temperature", "seed"]
    assert [len(mean.runs) for mean in group_seeds(runs)] == [1, 1]


def test_bytes_of_a_run_that_saves_are_not_known_before_it_has_told_them(
    quick_run: RunFolder, tmp_path: Path
):
    config = quick_run.load_config()
    folder = RunFolder(tmp_path / "copy")
    folder.path.mkdir()
    for file in (quick_run.plan, quick_run.metrics, quick_run.partition):
        (folder.path / file.name).write_bytes(file.read_bytes())
    known = {}
    for enabled in (True, False):
        folder.save_config(changed(config, {"saving.enabled": enabled}))
        run = with_overhead(read_run(folder.path, tmp_path))
        (row,) = rows_of([run], varying([run]))
        known[enabled] = [
            row[title] != "-" for title in ("MB a client, true", "MB a client, paper")
        ]
        assert run.problems == ()
    assert known == {True: [False, False], False: [True, True]}
    folder.save_config(changed(config, {"clients.batch_size": 0}))
    (problem,) = with_overhead(read_run(folder.path, tmp_path)).problems
    assert "bytes don't follow from its files (clients.batch_size=0: must be" in problem
