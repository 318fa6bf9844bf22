"""Pictures are listed, and their features written block by block."""

import logging
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

import mocosfl
from mocosfl.encoders import embedding
from mocosfl.encoders.embedding import list_pictures, write_features
from mocosfl.runs.folder import RunFolder
from tests.support.picture_folders import write_digits


def test_pixels_are_held_for_three_blocks_at_most(
    quick_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_digits(tmp_path / "x", 40, flat=True)
    encoder, started = mocosfl.load_encoder(quick_run.path), list[str]()
    decode, run = embedding.decode_picture, encoder.forward
    ahead: list[int] = []

    def decoded(file: Path, size: int):
        started.append(file.name)
        return decode(file, size)

    def counted(images: torch.Tensor) -> torch.Tensor:
        ahead.append(len(started) - 4 * len(ahead))
        return run(images)

    monkeypatch.setattr(embedding, "decode_picture", decoded)
    monkeypatch.setattr(encoder, "forward", counted)
    files = list_pictures(tmp_path / "x").files
    write_features(
        encoder, files, tmp_path / "f.npy", batch_size=4, num_workers=3, skip_unreadable=False
    )
    assert len(ahead) == 10 and max(ahead) <= 3 * 4


def test_features_that_are_not_finite_are_refused(quick_run: RunFolder, tmp_path: Path):
    write_digits(tmp_path / "x", 3, flat=True)
    encoder = mocosfl.load_encoder(quick_run.path)
    next(encoder.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match=r"not finite .*diverged"):
        write_features(
            encoder, list_pictures(tmp_path / "x").files, tmp_path / "f.npy",
            batch_size=4, num_workers=1, skip_unreadable=True,
        )  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_classes_are_the_first_folders(tmp_path: Path):
    for name in ("train/cat/deep/1.png", "test/dog/2.png", "3.png", "val/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    found = list_pictures(tmp_path)
    assert found.num_others == 1
    named = {found.relative(file): found.class_of(file) for file in found.files}
    assert named == {
        "3.png": "", "test/dog/2.png": "dog", "train/cat/deep/1.png": "cat", "val/4.png": "",
    }  # fmt: skip
    (tmp_path / "train").rename(tmp_path / "training")
    found = list_pictures(tmp_path)
    assert {found.class_of(file) for file in found.files} == {"", "test", "training", "val"}


def test_names_that_are_not_utf8_are_written_with_escapes(tmp_path: Path):
    file = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Image.new("RGB", (4, 4)).save(file)
    found = list_pictures(tmp_path)
    assert [found.relative(name) for name in found.files] == ["caf\\xe9.png"]


def test_progress_is_told_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(embedding, "_TOLD_EVERY_SECONDS", 0.0)
    progress = embedding._Progress(3000)
    with caplog.at_level(logging.INFO):
        progress.tell(1500)
        progress.tell(1500)  # all: the command's own lines follow
    assert [record.getMessage().split(" pic")[0] for record in caplog.records] == ["1,500 of 3,000"]
