"""An exported head computes what torch computes, and says what it is."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from mocosfl.edge.client.exported_head import ExportedHead
from mocosfl.edge.wire import PROTOCOL, head_digest
from mocosfl.encoders import onnx_graph
from mocosfl.encoders.export_head import export_head, write_head
from mocosfl.encoders.onnx_graph import to_onnx
from mocosfl.models.layers import StandardisedConv2d, standardise
from mocosfl.models.split import Bottleneck
from mocosfl.runs.folder import RunFolder
from tests.support.configurations import Compose
from tests.support.exported_heads import SMALL, export_small, make_encoder
from tests.support.small_networks import images, make_split

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
def test_a_run_without_a_cut_has_no_head(quick_run: RunFolder, tmp_path: Path) -> None:
    checkpoint = torch.load(quick_run.last, weights_only=True)
    checkpoint["config"]["method"].update(name="fl_moco")
    torch.save(checkpoint, tmp_path / "whole.ckpt")
    with pytest.raises(ValueError, match="nothing crosses a cut"):
        export_head(tmp_path / "whole.ckpt", tmp_path / "head.onnx")
    assert not (tmp_path / "head.onnx").exists()


def test_what_is_missing_for_an_export_is_named(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"onnx is not installed.*pip install -e '.\[edge\]'"):
        export_small(compose(SMALL), tmp_path / "head.onnx")
