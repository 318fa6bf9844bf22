"""report.html: what it shows, what it says is missing, that nothing breaks out of it."""

import csv
import json
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mocosfl.report import build_page as pages
from mocosfl.report.__main__ import main
from mocosfl.report.embedded_pictures import MAX_FULL_RUNS, SMALL_WIDTH, Album
from mocosfl.runs.folder import RunFolder
from tests.support.written_runs import add_evaluations, picture

NASTY = '<script>alert("x")</script> & $\\frac$'


class Elements(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def _page(folder: Path) -> str:
    main([str(folder)])
    return (folder / "report.html").read_text()


def test_page_of_a_run_holds_all_that_the_run_has_written(run_copy: RunFolder):
    add_evaluations(run_copy)
    page = _page(run_copy.path)
    elements = Elements(page)
    images = elements.named("img")
    assert len(images) == 7
    assert all(re.match("data:image/(webp|png);base64,", image["src"] or "") for image in images)
    assert all(image["alt"] for image in images)
    charts = [a["aria-label"] for a in elements.named("svg") if a.get("role") == "img"]
    for title in ("Loss", "kNN on training images", "Contrast accuracy", "Embedding std",
                  "Learning rate", "Divergence of the heads"):  # fmt: skip
        assert f"{title} over rounds" in charts
    assert "Probes over their epochs over epochs of the probe" in charts
    for words in ("finished", "61.30", "62.00", "0.123 ± 0.010", "A client sends", "linear probe",
                  "After round 3"):  # fmt: skip
        assert words.lower() in elements.text.lower()
    assert "<dt>images a client</dt><dd>14 to 16, mean 14.4</dd>" in page
    assert "No probe yet" not in page and "Not attacked yet" not in page


def test_what_is_missing_is_named_with_its_command(
    run_copy: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(run_copy.path.parent)
    run_copy.finished.unlink()
    text = Elements(_page(run_copy.path)).text
    for command in (
        "python linear_probe.py checkpoint=run", "python -m mocosfl.attack checkpoint=run",
        "python train.py resume=run",
    ):  # fmt: skip
        assert command in text
    assert "callbacks.pictures=false" in text
    assert "interrupted" in text


def test_whatever_a_run_says_is_shown_and_never_obeyed(write_run: Any, tmp_path: Path):
    sweep = tmp_path / "a<b>&c"
    write_run(tmp_path / "first", ["seed=5"], finished=False)
    write_run(tmp_path / "second")
    sweep.mkdir()
    for before, after in (("first", "r<u>1"), ("second", "other")):
        (tmp_path / before).rename(sweep / after)
    folder = RunFolder(sweep / "r<u>1")
    config = folder.config.read_text().replace("notes: ''", "notes: " + json.dumps(NASTY))
    folder.config.write_text(config.replace("name: digits", "name: x<i>y"))
    folder.plan.write_text(f"method           {NASTY}\n")
    folder.failed.write_text(NASTY)
    rows = list(csv.reader(folder.metrics.read_text().splitlines()))
    rows[0][1] = "train/" + NASTY.replace(",", "")
    with folder.metrics.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    page = _page(sweep)
    elements = Elements(page)
    assert not {"script", "i", "u"} & {tag for tag, _ in elements.found}
    assert elements.text.count(NASTY) >= 4  # the plan, the notes, the reason twice
    assert all(words in elements.text for words in ("a<b>&c", "r<u>1", "x<i>y"))


def test_sweep_is_compared_overlaid_and_shown_run_by_run(write_run: Any, tmp_path: Path):
    for clients, top1 in ((20, 0.5), (100, 0.6)):
        write_run(tmp_path / f"n{clients}", [f"clients={clients}"], top1=top1)
    write_run(tmp_path / "n5", ["clients=5"], steps=300, finished=False, top1=None)
    write_run(tmp_path / "n200", ["clients=200"], finished=False).failed.write_text("no\nmore")
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / "failed.txt").write_text("wrong\n")
    elements = Elements(_page(tmp_path))
    runs = [a for a in elements.named("details") if a.get("class") == "run"]
    assert len(runs) == 5
    assert len(elements.named("img")) == 3  # the accuracies
    for words in (
        "5 runs: 2 finished, 1 interrupted, 2 failed.", "Best linear probe", "60.00 %",
        "100 clients", "Failed: 200 clients: no", "Failed: refused: wrong", "300 of 1,000 steps",
    ):  # fmt: skip
        assert words in elements.text
    loss = next(a for a in elements.named("svg") if a.get("aria-label") == "Loss over steps")
    assert loss
    targets = {a.get("id") for _, a in elements.found}
    links = [str(a["href"]) for a in elements.named("a")]
    assert all(link.startswith("#") and link[1:] in targets for link in links)


@pytest.mark.slow
def test_page_of_many_runs_stays_within_its_bound(write_run: Any, tmp_path: Path):
    num_runs = MAX_FULL_RUNS + 1
    for seed in range(num_runs):
        folder = write_run(tmp_path / f"{seed}", [f"seed={seed}"])
        picture(folder.pictures / "partition.png", width=SMALL_WIDTH + 300)
    page = _page(tmp_path)
    widths = [int(image["width"] or 0) for image in Elements(page).named("img")]
    assert len(widths) > num_runs and max(widths) <= SMALL_WIDTH
    assert f"With more than {MAX_FULL_RUNS} runs, pictures are {SMALL_WIDTH} pixels wide" in page


def test_pictures_without_room_are_told_on_the_page_of_a_run(
    run_copy: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    add_evaluations(run_copy)
    monkeypatch.setattr(pages, "Album", partial(Album, max_bytes=0))
    page = _page(run_copy.path)
    assert "No room in this page for 7 pictures: see the folder of the run." in page
    assert "<img" not in page


def test_no_two_elements_of_a_page_have_the_same_id(write_run: Any, tmp_path: Path):
    for name in ("a", "b"):  # alike: their charts would have the same marks and clips
        add_evaluations(write_run(tmp_path / name, top1=None))
    elements = Elements(_page(tmp_path))
    ids = [a["id"] for _, a in elements.found if "id" in a]
    assert len(ids) == len(set(ids)) > 10
    uses = [str(a["xlink:href"]) for _, a in elements.found if "xlink:href" in a]
    clips = re.findall(r"url\((#[^)]+)\)", (tmp_path / "report.html").read_text())
    assert uses and clips
    assert {link.removeprefix("#") for link in (*uses, *clips)} <= set(ids)


@pytest.mark.parametrize(
    "damaged",
    [
        {
            "pictures/partition.png": "no picture",
            "overhead.json": '{"num_steps": 21, "mean_client": {"up_bytes": 1, "down_bytes": 1}}',
            "attack/attack.json": "{}",
            "probe/results.json": "[",
            "metrics.csv": "step,train/loss\n1,abc\n",
        },
        {"probe/metrics.csv": "step,probe/linear_top1\n0,x\n"},
    ],
)
def test_damaged_parts_are_told_and_the_others_are_shown(
    run_copy: RunFolder, damaged: dict[str, str]
):
    add_evaluations(run_copy)
    for file, content in damaged.items():
        (run_copy.path / file).write_text(content)
    text = Elements(_page(run_copy.path)).text
    told = [line for line in text.splitlines() if line.startswith("Not read: ")]
    for file in damaged:
        words = {"probe/metrics.csv": "probe", "attack/attack.json": "attack"}
        assert any(words.get(file, Path(file).name.removesuffix(".json")) in line for line in told)
    assert "Plan and settings" in text and "Images, and two random views" in text


def test_numbers_beside_a_chart_are_not_cut(tmp_path: Path, write_run: Any):
    folder = write_run(tmp_path / "r")
    folder.metrics.write_text("step,lr/server\n0,0.001\n1,0.002\n2,0.0025\n")
    assert re.search(r">0\.00\d\d<", _page(folder.path))  # a tick
