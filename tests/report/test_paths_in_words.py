"""What a page says of folders: nothing of the machine, and commands that can be pasted."""

import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from mocosfl.config.identity import without_places
from mocosfl.report.__main__ import main
from mocosfl.report.paths_in_words import shown_words
from mocosfl.runs.folder import RunFolder
from tests.support.configurations import changed
from tests.support.written_runs import add_evaluations


@pytest.fixture
def run_copy(run_copy: RunFolder) -> RunFolder:
    """In a folder with a space in its name."""
    return RunFolder(run_copy.path.rename(run_copy.path.with_name("a run")))


def _written(folder: Path) -> str:
    """Return what the report of a folder says, but for the plain numbers of report.csv."""
    main([str(folder)])
    return "".join((folder / name).read_text() for name in ("report.html", "report.md"))


def test_page_names_no_folder_of_the_machine(run_copy: RunFolder):
    add_evaluations(run_copy)
    run_copy.finished.unlink()
    places = {
        "partition.path": "/home/ada/my work/partition.json", "taressfl.expert": "/home/ada/expert",
    }  # fmt: skip
    run_copy.save_config(changed(run_copy.load_config(), places))
    with run_copy.plan.open("a") as plan:
        plan.write("\ntaressfl         on: frozen heads from /home/ada/expert\n")
        plan.write("partition        file: as in /home/ada/my work/partition.json\n")
    run_copy.failed.write_text(f"{run_copy.path}/a: no data; data_dir=/home/ada/data/x is empty")
    said = _written(run_copy.path)
    assert str(run_copy.path.parent) not in said
    assert "/home" not in said and "ada/" not in said and "my work" not in said
    for words in ("file: as in .../partition.json", "heads from .../expert",
                  "data_dir=.../x is empty"):  # fmt: skip
        assert words in said
    assert re.search(r"taressfl.expert +expert\n", said)


def test_sweep_over_experts_names_no_folder_of_the_machine(write_run: Any, tmp_path: Path):
    for name in ("one", "two"):
        folder = write_run(tmp_path / name)
        path = {"taressfl.expert": f"/home/ada/{name}_expert"}
        folder.save_config(changed(folder.load_config(), path))
    said = _written(tmp_path)
    assert "one_expert" in said and "two_expert" in said
    assert "/home" not in said and str(tmp_path) not in said


def test_configuration_of_another_version_is_told_without_its_place(
    run_copy: RunFolder, capsys: pytest.CaptureFixture[str]
):
    run_copy.overhead.unlink()
    run_copy.config.write_text(run_copy.config.read_text() + "of_another_version: 1\n")
    said = _written(run_copy.path)
    assert "not a configuration of this version" in said
    assert str(run_copy.path.parent) not in said


def test_commands_can_be_pasted(run_copy: RunFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(run_copy.path.parent)
    run_copy.finished.unlink()
    main([str(run_copy.path)])
    codes = re.findall("<code>(.*?)</code>", (run_copy.path / "report.html").read_text())
    words = [shlex.split(unescape(code)) for code in codes]
    assert {tuple(command[-1:]) for command in words} == {
        ("resume=a run",), ("checkpoint=a run",),
    }  # fmt: skip
    assert len(words) == 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no /home/ada/x, sorry", "no .../x, sorry"),
        ("path=/home/ada/x/y.json: bad", "path=.../y.json: bad"),
        ("see https://host/a/b", "see https://host/a/b"),
        ("multirun/a/b and 1/2/3 and and/or", "multirun/a/b and 1/2/3 and and/or"),
        ("${data_dir}/birds/blue", "${data_dir}/birds/blue"),
        ("/here/r/checkpoints", "<folder of the runs>/r/checkpoints"),
        ("in /my own/place/x.", "in .../place/x."),
    ],
)
def test_paths_in_words_are_cut_to_their_last_part(text: str, shown: str):
    settings = ["/my own/place", "/", "/data", 3, None]
    assert shown_words(text, Path("/here/r"), settings) == shown


def test_groups_are_cut_within():
    values = {"a": {"path": "/home/ada/x"}, "b": "multirun/x", "c": [1], "d": None}
    assert without_places(values) == values | {"a": {"path": "x"}}
