"""An exported encoder computes what torch computes, and says what it is."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import mocosfl
from mocosfl.config.schema import Config
from mocosfl.encoders import onnx_graph
from mocosfl.encoders.export_encoder import ExportedEncoder, export_encoder
from mocosfl.encoders.facts import EncoderFacts, encoder_facts_from_metadata
from mocosfl.encoders.image_encoder import image_encoder
from mocosfl.runs.folder import RunFolder
from tests.support.configurations import Compose
from tests.support.exported_heads import SMALL, make_encoder
from tests.support.picture_folders import write_digits
from tests.support.real_data import DATA_DIR


@pytest.mark.parametrize(
    "overrides",
    [
        ["backbone=resnet18", "split=cut2_c4s4", "split.client_residual=false"],
        ["backbone=resnet50", "split=cut1_c4s2", "dataset.image_size=64"],
        ["backbone=vgg11", "split=cut4"],
        ["backbone=mobilenetv2", "split=cut2_c4s2", "split.bottleneck_relu=false"],
        ["method=fl_moco", "dataset.image_size=130"],  # nothing is cut; a stem of 7 x 7
        pytest.param(["backbone=resnet34", "split=cut7"], marks=pytest.mark.slow),
        pytest.param(["backbone=vgg16", "split=cut1_c4s4"], marks=pytest.mark.slow),
    ],
)
def test_an_exported_encoder_computes_what_torch_computes(
    compose: Compose, tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(["dataset=cifar10", "backbone.width=4", *overrides])
    exported = export_made_up(config, tmp_path, monkeypatch)
    assert [file.name for file, _ in exported.files] == ["encoder.safetensors", "encoder.onnx"]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["encoder.onnx", "encoder.safetensors"]
    safetensors, onnx_file = (parity for _, parity in exported.files)
    assert safetensors.difference == 0
    assert 0 < onnx_file.difference < 10 * onnx_file.rounding < 1e-3
    images = exported.encoder.scaled(np.full((5, *[config.dataset.image_size] * 2, 3), 7, np.uint8))
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"))
    (found,) = session.run(["features"], {"images": images.numpy()})  # another batch size
    np.testing.assert_allclose(found, exported.encoder(images).numpy(), atol=1e-4)


def export_made_up(
    config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> ExportedEncoder:
    """Export the encoder of a configuration as if it were read from a checkpoint."""
    encoder = image_encoder(make_encoder(config))
    monkeypatch.setattr("mocosfl.encoders.export_encoder.load_encoder", lambda path, which: encoder)
    return export_encoder(Path("made_up.ckpt"), folder, **more)


def test_the_files_of_an_encoder_say_what_it_is(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = export_made_up(compose(SMALL), tmp_path, monkeypatch).encoder.facts
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"))
    metadata = session.get_modelmeta().custom_metadata_map
    assert encoder_facts_from_metadata(metadata) == facts
    assert json.loads(metadata["mocosfl.mean"]) == list(compose(SMALL).dataset.mean)
    assert mocosfl.load_encoder(tmp_path / "encoder.safetensors").facts == facts
    (end,), (start,) = session.get_outputs(), session.get_inputs()
    assert (start.name, start.shape) == ("images", ["batch", 3, 32, 32])
    assert (end.name, end.shape) == ("features", ["batch", facts.num_features])


def test_an_encoder_that_is_not_torchs_is_not_kept(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_made_up(compose(SMALL), tmp_path, monkeypatch)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with monkeypatch.context() as broken:
        broken.setattr(onnx_graph, "standardise", lambda weight: weight.detach())
        with pytest.raises(ValueError, match=r"encoder\.onnx: .* differ from torch's by .*nothing"):
            export_made_up(compose(SMALL), tmp_path, monkeypatch, formats=["onnx"])
    with monkeypatch.context() as broken:
        broken.setattr(
            "mocosfl.encoders.export_encoder.read_encoder_file", lambda file: other_weights(compose)
        )
        with pytest.raises(ValueError, match=r"encoder\.safetensors: .*differ from torch's by"):
            export_made_up(compose(SMALL), tmp_path, monkeypatch, formats=["safetensors"])
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def other_weights(compose: Compose) -> tuple[nn.Sequential, EncoderFacts]:
    encoder = image_encoder(make_encoder(compose(SMALL), seed=1))
    return encoder.network[1:], encoder.facts


def test_safetensors_need_no_onnx(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"onnxruntime is not installed: pip .*\[onnx\]"):
        export_made_up(compose(SMALL), tmp_path, monkeypatch)
    assert list(tmp_path.iterdir()) == []
    export_made_up(compose(SMALL), tmp_path, monkeypatch, formats=["safetensors"])
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.safetensors"]


def test_a_picture_to_check_on_that_cannot_be_read_is_named(
    quick_run: RunFolder, tmp_path: Path
) -> None:
    write_digits(tmp_path / "pics", 2, flat=True)
    (tmp_path / "pics" / "001.png").write_bytes(b"no picture")
    message = rf"^--images={tmp_path}/pics: the picture .*001\.png can't be read"
    with pytest.raises(ValueError, match=message):
        export_encoder(quick_run.path, tmp_path / "out", pictures=tmp_path / "pics")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    not (DATA_DIR / "cifar10" / "test_images.npy").is_file(),
    reason=f"real CIFAR-10 is not in {DATA_DIR}/cifar10 (set MOCOSFL_DATA_DIR)",
)
def test_exported_encoders_give_torchs_features_on_cifar10(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(["dataset=cifar10", "backbone.width=64", "split=cut2_c4s2"])
    exported = export_made_up(config, tmp_path, monkeypatch)
    pixels = np.load(DATA_DIR / "cifar10" / "test_images.npy", mmap_mode="r")[::100]
    images = exported.encoder.scaled(np.array(pixels))
    expected = exported.encoder(images)
    loaded = mocosfl.load_encoder(tmp_path / "encoder.safetensors")
    assert torch.equal(loaded(images), expected)
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"))
    (found,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-4)
