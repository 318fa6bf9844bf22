"""What is exported computes what torch computes, and says what it is: heads, then encoders."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import Compose
from exported_heads import SMALL, export_small, make_encoder
from onnx import numpy_helper
from picture_folders import write_digits
from test_models import images, make_split
from test_real_data import DATA_DIR
from torch import nn

import mocosfl
from mocosfl.config.schema import Config
from mocosfl.edge.client.exported_head import ExportedHead
from mocosfl.edge.wire import PROTOCOL, head_digest
from mocosfl.encoders import export_encoder as encoder_export
from mocosfl.encoders import onnx_graph
from mocosfl.encoders.export_encoder import ExportedEncoder, export_encoder
from mocosfl.encoders.export_head import export_head, write_head
from mocosfl.encoders.facts import EncoderFacts, facts_from_metadata
from mocosfl.encoders.image_encoder import image_encoder
from mocosfl.encoders.onnx_graph import to_onnx
from mocosfl.export import main
from mocosfl.models.layers import StandardisedConv2d, standardise
from mocosfl.models.split import Bottleneck
from mocosfl.runs.checkpoint import HEADS, read_encoder
from mocosfl.runs.folder import RunFolder

C4S2, C2S4 = Bottleneck(4, 2), Bottleneck(2, 4, kernel_size=5, relu=False)


def run(network: nn.Module, size: int, pixels: torch.Tensor) -> np.ndarray[Any, Any]:
    """Export a network and run it."""
    model = to_onnx(network, size, input_name="a", output_name="b")
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(["b"], {"a": pixels.numpy()})[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "name, cut_layer, more",
    [
        ("resnet18", 1, {}),
        ("resnet18", 1, {"bottleneck": C4S2}),
        ("resnet18", 2, {}),
        ("resnet18", 2, {"bottleneck": C4S2}),
        ("resnet18", 5, {"bottleneck": C2S4}),  # a shortcut with a convolution
        ("resnet18", 4, {"client_residual": False}),
        ("resnet18", 9, {"image_size": 64}),
        ("resnet50", 3, {"bottleneck": C4S2, "width": 4}),
        ("vgg11", 1, {"bottleneck": C4S2}),
        ("vgg11", 4, {}),
        ("vgg19", 21, {"width": 4}),
        ("mobilenetv2", 3, {}),
        ("mobilenetv2", 9, {"width": 4, "bottleneck": C4S2}),
    ],
)
def test_the_graph_computes_what_the_head_computes(
    name: str, cut_layer: int, more: dict[str, Any]
) -> None:
    head = make_split(name, cut_layer=cut_layer, **more).head.eval()
    size = more.get("image_size", 32)
    for batch in (1, 3):
        pixels = images(batch, size, torch.float32)
        with torch.no_grad():
            expected = head(pixels).numpy()
        largest = np.abs(expected).max()
        np.testing.assert_allclose(run(head, size, pixels), expected, atol=2e-5 * largest)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet34", "resnet50", "vgg13", "vgg16", "mobilenetv2"])
def test_every_cut_can_be_exported(name: str) -> None:
    for cut_layer in range(1, 10):
        head = make_split(name, cut_layer=cut_layer, bottleneck=C4S2, width=4).head.eval()
        pixels = images(2, 32, torch.float32)
        expected = head(pixels).detach().numpy()
        np.testing.assert_allclose(run(head, 32, pixels), expected, atol=1e-4)


def test_standardisation_is_done_once_with_the_same_bits() -> None:
    head = make_split(cut_layer=2).head
    graph = to_onnx(head, 32, input_name="a", output_name="b").graph
    weights = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    convs = [m for m in head.modules() if isinstance(m, StandardisedConv2d)]
    assert len(convs) == 3
    for conv in convs:
        wanted = standardise(conv.weight).detach().numpy()
        assert any(np.array_equal(wanted, weight) for weight in weights.values())
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds.keys() == {
        "Conv", "Reshape", "InstanceNormalization", "Mul", "Add", "Relu", "Identity",
    }  # fmt: skip


def test_a_layer_that_is_not_known_is_an_error() -> None:
    for layer in (nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1, padding="same"), nn.Sigmoid()):
        with pytest.raises(NotImplementedError, match="no ONNX is known"):
            to_onnx(nn.Sequential(layer).eval(), 8, input_name="a", output_name="b")

    class PlusOne(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    with pytest.raises(NotImplementedError, match="no ONNX is known"):
        to_onnx(PlusOne(), 8, input_name="a", output_name="b")


def test_the_file_says_what_it_is(compose: Compose, tmp_path: Path) -> None:
    encoder = make_encoder(compose(SMALL))
    exported = write_head(encoder, tmp_path / "new" / "head.onnx")
    facts = ExportedHead(tmp_path / "new" / "head.onnx").facts
    assert facts == exported.facts
    head = encoder.network[0]  # type: ignore[index]
    flat = np.concatenate([p.numpy().ravel() for _, p in head.named_parameters()])
    assert facts.digest == head_digest(flat)
    assert facts.smashed_shape == (4, 16, 16)
    assert (facts.image_size, facts.cut_layer, facts.backbone) == (32, 2, "resnet18")
    assert facts.mean == tuple(encoder.config.dataset.mean)
    assert facts.std == tuple(encoder.config.dataset.std)
    assert (facts.step, facts.protocol) == (7, PROTOCOL)
    assert 0 < exported.parity.difference < 10 * exported.parity.rounding < 1e-4


def test_the_digest_is_of_the_weights(compose: Compose, tmp_path: Path) -> None:
    digests = {
        write_head(make_encoder(compose(SMALL), seed=seed), tmp_path / "head.onnx").facts.digest
        for seed in (0, 0, 1)
    }
    assert len(digests) == 2


def test_a_file_that_is_not_the_head_is_not_kept(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "head.onnx"
    export_small(compose(SMALL), file)
    before = file.read_bytes()
    monkeypatch.setattr(onnx_graph, "standardise", lambda weight: weight.detach())
    with pytest.raises(ValueError, match=r"head\.onnx: .* differ from torch's by .*nothing is"):
        export_small(compose(SMALL), file, seed=1)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


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


@pytest.mark.slow
def test_a_run_without_a_cut_has_no_head(quick_run: RunFolder, tmp_path: Path) -> None:
    checkpoint = torch.load(quick_run.last, weights_only=True)
    checkpoint["config"]["method"].update(name="fl_moco")
    torch.save(checkpoint, tmp_path / "whole.ckpt")
    with pytest.raises(ValueError, match="nothing crosses a cut"):
        export_head(tmp_path / "whole.ckpt", tmp_path / "head.onnx")
    assert not (tmp_path / "head.onnx").exists()


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


def test_what_is_missing_for_an_export_is_named(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"onnx is not installed.*pip install -e '.\[edge\]'"):
        export_small(compose(SMALL), tmp_path / "head.onnx")


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
    monkeypatch.setattr(encoder_export, "load_encoder", lambda path, which: encoder)
    return export_encoder(Path("made_up.ckpt"), folder, **more)


def test_the_files_of_an_encoder_say_what_it_is(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = export_made_up(compose(SMALL), tmp_path, monkeypatch).encoder.facts
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"))
    metadata = session.get_modelmeta().custom_metadata_map
    assert facts_from_metadata(metadata) == facts
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
        broken.setattr(encoder_export, "read_encoder_file", lambda file: other_weights(compose))
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


def test_a_picture_to_check_on_that_cannot_be_read_is_named(
    quick_run: RunFolder, tmp_path: Path
) -> None:
    write_digits(tmp_path / "pics", 2, flat=True)
    (tmp_path / "pics" / "001.png").write_bytes(b"no picture")
    message = rf"^--images={tmp_path}/pics: the picture .*001\.png can't be read"
    with pytest.raises(ValueError, match=message):
        export_encoder(quick_run.path, tmp_path / "out", pictures=tmp_path / "pics")
    assert not (tmp_path / "out").exists()


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
