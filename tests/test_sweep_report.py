"""`python -m mocosfl.report`: tables, pictures and what is missing or damaged."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Compose, changed
from written_runs import MB, written_run

from mocosfl.config.identity import FREE_KEYS
from mocosfl.report import runs as report_runs
from mocosfl.report.__main__ import main
from mocosfl.report.runs import find_runs, read_run
from mocosfl.report.table import group_seeds, rows_of, varying
from mocosfl.report.unfinished_bytes import with_overhead
from mocosfl.report.write import choose_accuracy
from mocosfl.runs.folder import RunFolder


@pytest.fixture
def write_run(compose: Compose) -> Any:
    """Write what a run leaves, or a part of it."""
    return partial(written_run, compose)


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


def test_missing_values_are_dashes_and_empty_cells_never_zeros(write_run: Any, tmp_path: Path):
    write_run(tmp_path / "r", top1=None, monitor=None, megabytes=None, finished=False, steps=300)
    main([str(tmp_path)])
    (line,) = [x for x in (tmp_path / "report.md").read_text().splitlines() if x[:4] == "| r "]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[6:8] == ["300 / 1,000", "interrupted"]
    assert cells[8] == "10.00 (after 1)"  # the monitor's last value, of step 0
    assert cells[9:] == ["-", "-", "-", "-", "3.2500 (after 300)", "-", "-"]
    (row,) = csv.DictReader((tmp_path / "report.csv").read_text().splitlines())
    assert (row["linear"], row["true_bytes"], row["status"]) == ("", "", "interrupted")


def test_results_of_a_finished_run_are_those_of_its_end_and_bare(write_run: Any, tmp_path: Path):
    runs = [read_run(write_run(tmp_path / "r", monitor=None).path, tmp_path)]
    (row,) = rows_of(runs, varying(runs))
    assert (row["kNN monitor (training images)"], row["linear"]) == ("10.00", "50.00")
    (row,) = rows_of([replace(runs[0], status="interrupted")], varying(runs))
    assert row["kNN monitor (training images)"] == "10.00 (after 1)"
    assert row["linear"] == "50.00 (after 1,000)"
    assert row["MB a client, true"] == "31.00"


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


def test_settings_without_influence_are_no_columns():
    ours = set(report_runs.NO_INFLUENCE)
    assert set(FREE_KEYS) <= ours
    assert "moco" not in ours


def test_seeds_are_averaged(write_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for seed, top1 in ((1, 0.5), (2, 0.6), (3, 0.7)):
        write_run(tmp_path / f"s{seed}", [f"seed={seed}"], top1=top1)
    write_run(tmp_path / "s4", ["seed=4"], top1=0.1, steps=200, finished=False)
    main([str(tmp_path)])
    text = (tmp_path / "report.md").read_text()
    _, second = text.split("## Over seeds")
    assert "| 3 | 40.00 +- 0.00 | 61.00 +- 10.00 | 60.00 +- 10.00 |" in second  # not s4
    assert "3 of 3 finished runs" in text
    assert "4 runs: 3 finished, 1 interrupted, 0 failed." in capsys.readouterr().out


def test_number_of_seeds_behind_a_mean_is_told_where_it_is_smaller(write_run: Any, tmp_path: Path):
    for seed in (1, 2):
        write_run(tmp_path / f"s{seed}", [f"seed={seed}"], top1=0.5 if seed == 1 else None)
    main([str(tmp_path)])
    second = (tmp_path / "report.md").read_text().split("## Over seeds")[1]
    assert "| 50.00 (n = 1) |" in second


def test_failed_job_is_named_with_its_reason(write_run: Any, tmp_path: Path):
    write_run(tmp_path / "good")
    write_run(tmp_path / "stopped", finished=False).failed.write_text("train/loss is NaN\nmore\n")
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / "failed.txt").write_text("clients.batch_size=0: must be at least 1\n")
    main([str(tmp_path)])
    text = (tmp_path / "report.md").read_text()
    assert "3 runs: 1 finished, 0 interrupted, 2 failed." in text
    assert "- refused: clients.batch_size=0: must be at least 1" in text
    assert "- stopped: train/loss is NaN\n" in text
    assert "| refused | - | - | - | - | - | - / - | failed |" in text


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("probe/results.json", '{"knn_top1": 0.'),
        ("probe/results.json", "[1, 2]"),
        ("probe/results.json", '{"probes": [1]}'),
        ("overhead.json", "\x00"),
        ("overhead.json", '{"mean_client": {"up_bytes": 1}}'),
        ("metrics.csv", "step,train/loss\n1,abc\n"),
        ("config.yaml", "a: [1"),
        ("finished.json", "{"),
        ("finished.json", '{"step": "many"}'),
        ("overhead.json", '{"num_steps": "many"}'),
        ("probe/results.json", '{"encoder_step": "many"}'),
        ("probe/results.json", '{"knn_top1": "0.5"}'),
        ("metrics.csv", "step,train/loss\ninf,1\n"),
        ("metrics.csv", "step,train/loss\n1,2\n" + 200_000 * "\0"),  # a disk that was full
        ("metrics.csv", "step,train/loss\n1,2\n\0\0\0\0"),
    ],
    ids=lambda text: text[:40].replace("\0", "0"),
)
def test_damaged_file_is_told_and_the_others_are_reported(
    write_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, content: str
):
    write_run(tmp_path / "good")
    write_run(tmp_path / "bad").path.joinpath(file).write_text(content)
    main([str(tmp_path)])
    assert "not read: bad: " in capsys.readouterr().out
    text = (tmp_path / "report.md").read_text()
    assert "| good | mocosfl |" in text
    assert "| bad | " in text
    assert str(tmp_path) not in text  # a report may be published


def test_probes_of_an_earlier_step_are_noticed(write_run: Any, tmp_path: Path):
    folder = write_run(tmp_path / "r")
    folder.finished.write_text(json.dumps({"step": 2000, "seconds": 1.0}))
    (problem,) = read_run(folder.path, tmp_path).problems
    assert problem == "r: probe/: is of step 1000, the run has done 2000"


def test_bytes_are_computed_where_their_file_is_missing(
    quick_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = RunFolder(tmp_path / "copy")
    folder.path.mkdir()
    for file in (quick_run.config, quick_run.plan, quick_run.metrics, quick_run.partition):
        (folder.path / file.name).write_bytes(file.read_bytes())
    main([str(tmp_path)])
    (row,) = csv.DictReader((tmp_path / "report.csv").read_text().splitlines())
    sent = json.loads(quick_run.overhead.read_text())["mean_client"]
    assert float(row["true_bytes"]) == pytest.approx(sent["up_bytes"] + sent["down_bytes"])
    assert float(row["paper_bytes"]) == pytest.approx(sent["paper_bytes"])
    assert "not read" not in capsys.readouterr().out


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


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_folder_without_runs_is_refused(tmp_path: Path, name: str):
    (tmp_path / "empty" / "below").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"mocosfl: folder=.*(no such folder|holds no run)"):
        main([str(tmp_path / name)])


def test_output_goes_where_it_is_asked_to(write_run: Any, tmp_path: Path):
    for name in ("r", "s"):
        write_run(tmp_path / "sweep" / name)
    main([str(tmp_path / "sweep"), "--output", str(tmp_path / "out")])
    files = {
        "report.md", "report.csv", "report.html", "accuracy_clients.png", "accuracy_cut.png",
        "accuracy_bytes.png",
    }  # fmt: skip
    assert {file.name for file in (tmp_path / "out").iterdir()} == files
    assert {path.name for path in (tmp_path / "sweep").iterdir()} == {"r", "s"}


def test_one_run_has_no_pictures_that_compare(write_run: Any, tmp_path: Path):
    write_run(tmp_path / "r")
    main([str(tmp_path / "r")])
    assert not list((tmp_path / "r").glob("accuracy_*.png"))


def test_pictures_of_an_earlier_report_go_when_they_are_drawn_no_more(
    write_run: Any, tmp_path: Path
):
    for name in ("r", "s"):
        write_run(tmp_path / name)
    (tmp_path / "accuracy_of_mine.png").write_text("not ours")
    main([str(tmp_path)])
    assert len(list(tmp_path.glob("accuracy_*.png"))) == 4
    shutil.rmtree(tmp_path / "s")
    main([str(tmp_path)])
    assert [file.name for file in tmp_path.glob("accuracy_*.png")] == ["accuracy_of_mine.png"]


def test_pictures_prefer_the_linear_probe_and_take_what_there_is(write_run: Any, tmp_path: Path):
    assert choose_accuracy([]) is None
    for number in range(5):
        write_run(tmp_path / f"{number}", top1=0.5 if number < 3 else None)
    runs = find_runs(tmp_path)
    assert choose_accuracy(runs) == "linear"
    assert choose_accuracy(runs[2:]) == "knn_monitor"  # 1 of 3 has been probed


def test_report_starts_without_torch():
    code = "import sys; import mocosfl.report.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
