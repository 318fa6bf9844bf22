"""`python -m mocosfl.report`: tables, pictures and what is missing or damaged."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mocosfl.report.__main__ import main
from mocosfl.runs.folder import RunFolder


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


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_folder_without_runs_is_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty" / "below").mkdir(parents=True)
    with pytest.raises(SystemExit):
        main([str(tmp_path / name)])
    told = capsys.readouterr().err
    assert re.search(r"mocosfl: folder=.*(no such folder|holds no run)", told)


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


def test_report_starts_without_torch():
    code = "import sys; import mocosfl.report.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
