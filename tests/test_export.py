"""`python -m mocosfl.export`: a head and an encoder of a run, and what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import mocosfl
from mocosfl.edge.client.exported_head import ExportedHead
from mocosfl.edge.wire import head_digest
from mocosfl.export import main
from mocosfl.runs.checkpoint import read_encoder
from mocosfl.runs.checkpoint_content import HEADS
from mocosfl.runs.folder import RunFolder
from tests.support.picture_folders import write_digits
from tests.support.small_networks import images


@pytest.mark.slow
def test_command_exports_the_synchronised_head_of_a_run(
    quick_run: RunFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "head.onnx"
    main(["head", str(quick_run.path), "--out", str(file)])
    shown = capfd.readouterr()
    assert shown.err == ""  # nothing of what exporters warn of
    head = ExportedHead(file)
    state = torch.load(quick_run.last, weights_only=True)["state_dict"]
    # Behind the run's last sync all heads are the same.
    first = torch.cat([v[0].ravel() for k, v in state.items() if k.startswith(HEADS)])
    assert head.facts.digest == head_digest(first.numpy())
    assert head.facts.step == 21
    for fact in (head.facts.digest, "21 training steps", str(file), "resnet18, cut 1"):
        assert fact in shown.out
    network = read_encoder(quick_run.last).network[0]  # type: ignore[index]
    pixels = images(2, head.facts.image_size, torch.float32)
    np.testing.assert_allclose(head(pixels.numpy()), network(pixels).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "name, message",
    [("nowhere", "no checkpoints/last.ckpt there"), ("text.ckpt", "not a readable checkpoint")],
)
def test_mistakes_are_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(SystemExit) as stop:
        main(["head", str(tmp_path / name), "--out", str(tmp_path / "head.onnx")])
    assert stop.value.code == 1
    assert message in capsys.readouterr().err


def test_command_exports_a_runs_encoder_checked_on_real_pictures(
    quick_run: RunFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    write_digits(pictures, 12)
    main(["encoder", str(quick_run.path), "--out", str(out), "--images", str(pictures)])
    shown = capfd.readouterr()
    assert shown.err == ""
    for words in (
        f"12 of the 12 pictures in {pictures}",
        "21 steps",
        "load_encoder(",
        "onnxruntime",
    ):
        assert words in shown.out
    encoder = mocosfl.load_encoder(out / "encoder.safetensors")
    images = encoder.preprocess(sorted(pictures.rglob("*.png")))
    expected = mocosfl.load_encoder(quick_run.path)(images)
    assert torch.equal(encoder(images), expected)
    session = onnxruntime.InferenceSession(str(out / "encoder.onnx"))
    (found,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    # What is printed as an example works.
    lines = [line.strip() for line in shown.out.splitlines() if line.startswith("    ")]
    names: dict[str, Any] = {"images": images.numpy()}
    exec("\n".join(lines).replace("picture.jpg", str(next(pictures.rglob("*.png")))), names)
    np.testing.assert_allclose(names["features"], expected.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "name, message", [("nowhere", "no such folder"), ("", "holds no pictures")]
)
def test_pictures_to_check_on_must_be_there(
    quick_run: RunFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    message: str,
) -> None:
    with pytest.raises(SystemExit):
        main(
            [
                "encoder",
                str(quick_run.path),
                "--out",
                str(tmp_path),
                "--images",
                str(tmp_path / name),
            ]
        )
    assert f"--images={tmp_path / name}: {message}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part, out", [("encoder", "file"), ("head", "file/head.onnx")])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, out: str
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit):
        main([part, "nowhere", "--out", str(tmp_path / out)])
    told = f"--out: cannot write to {tmp_path}/file ({tmp_path}/file is a file); choose another"
    assert told in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
