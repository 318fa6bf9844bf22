"""`python -m mocosfl.embed` on folders of real pictures, and what it refuses."""

import copy
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from omegaconf import DictConfig

import mocosfl
from mocosfl.config.command_line import with_folder
from mocosfl.config.embed import EmbedConfig
from mocosfl.config.hydra_setup import compose_file
from mocosfl.embed import _output_folder, embed
from mocosfl.rules.embed import validate_embed
from mocosfl.runs.folder import RunFolder
from tests.support.paths import ROOT
from tests.support.picture_folders import write_digits


@lru_cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    return compose_file("embed", overrides)


def settings(images: Path, checkpoint: Path, *overrides: str) -> EmbedConfig:
    """Compose the command's configuration for a folder."""
    config = copy.deepcopy(_composed(("accelerator=cpu", "num_workers=2", *overrides)))
    config.images, config.checkpoint = str(images), str(checkpoint)
    return cast(EmbedConfig, config)


def test_features_names_and_a_sheet_are_written(
    run_copy: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    names = write_digits(tmp_path / "my pictures, a=b", 30)
    # Blocks of 7 leave a smaller one at the end.
    config = settings(tmp_path / "my pictures, a=b", run_copy.path, "extract_batch_size=7")
    embed(config)
    folder = run_copy.path / "embed_my pictures, a=b"
    written = {"features.npy", "images.csv", "encoder.json", "neighbours.png"}
    assert {file.name for file in folder.iterdir()} == written
    features = np.load(folder / "features.npy")
    encoder = mocosfl.load_encoder(run_copy.path)
    files = [tmp_path / "my pictures, a=b" / name for name in names]
    expected = encoder(encoder.preprocess(files)).numpy()
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-6)
    with (folder / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == names
    assert [row["row"] for row in rows] == [str(number) for number in range(30)]
    assert all(row["class"] == row["path"].split("/")[0] for row in rows)
    facts = json.loads((folder / "encoder.json").read_text())
    assert (facts["step"], facts["num_images"], facts["unreadable"]) == (21, 30, [])
    assert facts["which"] == "last"
    out = capsys.readouterr().out
    for words in ("30 in ", "10 class folders", "(30, 32) float32", "of the 80 shown", "next: "):
        assert words in out
    before = (folder / "neighbours.png").read_bytes()
    embed(config)
    assert (folder / "neighbours.png").read_bytes() == before


def test_an_exported_encoder_writes_beside_where_it_is_started(
    run_copy: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(run_copy.last, tmp_path / "some.ckpt")
    write_digits(tmp_path / "flat", 5, flat=True)
    shutil.rmtree(run_copy.path)
    embed(settings(Path("flat"), Path("some.ckpt"), "num_neighbors=2"))
    with (tmp_path / "embed_flat" / "images.csv").open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == [""] * 5
    assert (tmp_path / "embed_flat" / "neighbours.png").is_file()
    facts = json.loads((tmp_path / "embed_flat" / "encoder.json").read_text())
    assert facts["which"] is None  # of a file there is but one
    (tmp_path / "embed_flat" / "mine.txt").write_text("stays")
    embed(settings(Path("flat"), Path("some.ckpt"), "num_neighbors=0"))
    names = {file.name for file in (tmp_path / "embed_flat").iterdir()}
    assert names == {"features.npy", "images.csv", "encoder.json", "mine.txt"}


@pytest.mark.parametrize(
    "place, expected",
    [
        ("", "run/embed_x"),
        ("checkpoints/last.ckpt", "run/embed_x"),
        ("checkpoints/best.ckpt", "run/embed_x_best"),
        ("encoder/encoder.safetensors", "embed_x"),
    ],
)
def test_results_lie_in_the_run_but_not_those_of_a_file_that_was_exported_into_it(
    run_copy: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    expected: str,
):
    monkeypatch.chdir(tmp_path)
    (run_copy.path / "encoder").mkdir()
    (run_copy.path / "encoder" / "encoder.safetensors").touch()
    assert _output_folder(settings(Path("x"), Path("run", place))) == Path(expected)


def test_names_that_are_not_utf8_are_printed_as_in_the_table(
    run_copy: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / os.fsdecode(b"odd\xfe")
    write_digits(folder, 3, flat=True)
    (folder / os.fsdecode(b"\xff.jpg")).write_bytes(b"no picture")
    printed = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", printed)
    embed(settings(folder, run_copy.path, "skip_unreadable=true", "num_neighbors=1"))
    printed.seek(0)
    told = printed.read()
    assert f"left out: {tmp_path}/odd\\xfe/\\xff.jpg (cannot identify" in told
    assert "udcff" not in told  # one form of a name
    assert f"features: {run_copy.path}/embed_odd\\xfe/features.npy" in told


def test_pictures_that_cannot_be_read_are_listed_or_left_out(
    run_copy: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    names = write_digits(tmp_path / "x", 12, flat=True)
    (tmp_path / "x" / "000.png").write_bytes(b"")
    (tmp_path / "x" / "007.png").write_bytes((tmp_path / "x" / "008.png").read_bytes()[:60])
    config = settings(tmp_path / "x", run_copy.path, "extract_batch_size=5", "num_neighbors=3")
    with pytest.raises(ValueError, match=r"(?s)2 of 12 pictures .*skip_unread.*000\.png.*007\.png"):
        embed(config)
    folder = run_copy.path / "embed_x"
    assert not folder.exists()
    config.skip_unreadable = True
    embed(config)
    features = np.load(folder / "features.npy")
    left = [name for name in names if name not in ("000.png", "007.png")]
    encoder = mocosfl.load_encoder(run_copy.path)
    expected = encoder(encoder.preprocess([tmp_path / "x" / name for name in left])).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-6)
    assert json.loads((folder / "encoder.json").read_text())["unreadable"] == ["000.png", "007.png"]
    assert "left out: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "folder", ["a", "a b", "it's", "a=b", "a,b", "back\\", "q\\'", "${x}", "[1]", "null", "ü", "-"]
)
def test_any_folder_reaches_the_configuration(folder: str, tmp_path: Path):
    path = str(tmp_path / folder)
    (tmp_path / folder).mkdir()
    (override, other) = with_folder([path, "checkpoint=x"])
    assert other == "checkpoint=x"
    assert compose_file("embed", [override]).images == path


def test_only_folders_are_taken_for_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept = ["checkpoint=a", "+x=1", "~which", "hydra.verbose=true", "--cfg", "job", "-cd", "conf"]
    kept.remove("job")
    monkeypatch.chdir(tmp_path)
    assert with_folder(kept) == kept
    assert with_folder(["wich=best"]) == ["wich=best"]  # a typing error: Hydra says so
    assert with_folder(["checkpoint=a", "pics"]) == ["images='pics'", "checkpoint=a"]
    with pytest.raises(ValueError, match="b: one folder of images expected, a is given already"):
        with_folder(["a", "b"])


def test_mistakes_are_named(run_copy: RunFolder, tmp_path: Path):
    write_digits(tmp_path / "x", 5, flat=True)
    (tmp_path / "empty").mkdir()

    def refuse(message: str, images: str, *overrides: str) -> None:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            embed(settings(tmp_path / images, run_copy.path, *overrides))

    refuse("nowhere: no such folder", "nowhere")
    refuse("is a file, name its folder", "x/001.png")
    refuse("holds no pictures by their names", "empty")
    refuse("num_neighbors=8: 5 pictures have 4 others", "x")
    refuse("lies in the folder of images", "x", "num_neighbors=1", f"output_dir={tmp_path}/x/out")
    rules = ["which=first", "accelerator=tpu", "extract_batch_size=0", "num_queries=0", "seed=-1"]
    config = settings(tmp_path / "x", run_copy.path, *rules, "num_neighbors=-1")
    with pytest.raises(ValueError) as error:
        validate_embed(config)
    told = [line.split(":")[0] for line in str(error.value).splitlines()]
    assert sorted(told) == sorted([*rules, "num_neighbors=-1"])
    with pytest.raises(ValueError, match=r"(?s)images=\?\?\?: .*checkpoint=\?\?\?: "):
        validate_embed(cast(EmbedConfig, copy.deepcopy(_composed(()))))
    assert not list(run_copy.path.glob("embed_*"))


@pytest.mark.slow
def test_command_embeds_a_folder(run_copy: RunFolder, tmp_path: Path):
    write_digits(tmp_path / "a=b, c", 12)
    command = [sys.executable, "-m", "mocosfl.embed", "a=b, c", f"checkpoint={run_copy.path}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (run_copy.path / "embed_a=b, c" / "neighbours.png").is_file()
