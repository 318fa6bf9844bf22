"""A client with an exported head: it sends what the training's head makes of its views."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch import nn

from mocosfl.data.augmentation import ViewParameters as TorchParameters
from mocosfl.data.augmentation import make_views
from mocosfl.data.round_plan import client_order
from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge.client import pillow_views
from mocosfl.edge.client.exported_head import ExportedHead
from mocosfl.edge.client.frozen_head import FrozenHead
from mocosfl.edge.wire import PROTOCOL
from mocosfl.system.randomness import numpy_generator
from tests.support.configurations import Compose
from tests.support.device_packages import device_path
from tests.support.exported_heads import SMALL, export_small
from tests.support.view_settings import SETTINGS

NUM_IMAGES, CLIENT, SEED, BATCH, STEPS = 7, 3, 11, 2, 3
VIEWS = pb.Views(**asdict(SETTINGS))


class Pictures:
    """Random images of a client; notes what is read, and how large they must be."""

    image_size = 0

    def __init__(self, num_images: int = NUM_IMAGES) -> None:
        generator = np.random.default_rng(1)
        self.pixels = generator.integers(0, 256, (num_images, 32, 32, 3), np.uint8)
        self.reads: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        self.reads.append(indices.tolist())
        return self.pixels[indices]

    def fit(self, image_size: int) -> None:
        self.image_size = image_size


@pytest.fixture
def head_file(compose: Compose, tmp_path: Path) -> Path:
    export_small(compose(SMALL), tmp_path / "head.onnx")
    return tmp_path / "head.onnx"


def welcome(head_file: Path, **changes: Any) -> pb.Welcome:
    """Return the welcome of a run that the head fits, with other values in its settings."""
    facts = ExportedHead(head_file).facts
    settings: dict[str, Any] = {
        "seed": SEED,
        "views": VIEWS,
        "image_size": facts.image_size,
        "mean": facts.mean,
        "std": facts.std,
        "batch_size": BATCH,
        "steps_per_round": STEPS,
        "frozen": True,
        "smashed_dtype": pb.FP16,
        "compute_dtype": pb.FP32,
        "smashed_shape": facts.smashed_shape,
        "head_digest": facts.digest,
    }
    return pb.Welcome(
        incarnation="first", client=CLIENT, settings=pb.Settings(**(settings | changes)), go_on=True
    )


def begun(head_file: Path, **changes: Any) -> tuple[FrozenHead, Pictures]:
    pictures = Pictures()
    head = FrozenHead(pictures, head_file)
    head.begin(welcome(head_file, **changes))
    return head, pictures


def step(number: int, *, round_index: int = 4) -> pb.StepRequest:
    return pb.StepRequest(step=round_index * STEPS + number, round=round_index, number=number)


def expected_rows(
    network: nn.Module, request: pb.StepRequest, facts_file: Path
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Smashed data of both views by the training's own operations, from the same draws."""
    order = client_order(
        NUM_IMAGES, CLIENT, seed=SEED, round_index=request.round, num_images=STEPS * BATCH
    )
    images = Pictures().pixels[order[request.number * BATCH :][:BATCH]]
    planes = torch.from_numpy(images).permute(0, 3, 1, 2)
    generator = numpy_generator(SEED, "edge_views", CLIENT, request.round, request.number)
    facts = ExportedHead(facts_file).facts
    rows = []
    for _ in range(2):
        drawn = pillow_views.draw_pillow_views(VIEWS, generator, num_images=BATCH, source=(32, 32))
        columns = zip(*drawn, strict=True)
        parameters = TorchParameters(*(torch.tensor(column) for column in columns))
        views = make_views(planes, parameters, output_size=32, mean=facts.mean, std=facts.std)
        rows.append(network(views).numpy())
    return rows[0], rows[1]


def test_query_and_key_are_the_heads_outputs_of_two_views(
    head_file: Path, compose: Compose
) -> None:
    network = export_small(compose(SMALL), head_file)
    head, _ = begun(head_file)
    for number in range(STEPS):
        query, key = head.smash(step(number))
        assert query.dtype == key.dtype == np.float32
        wanted_query, wanted_key = expected_rows(network, step(number), head_file)
        np.testing.assert_allclose(query, wanted_query, atol=3e-5)  # in outputs up to 5
        np.testing.assert_allclose(key, wanted_key, atol=3e-5)
        assert np.abs(wanted_query - wanted_key).max() > 0.5


def test_both_views_go_through_both_heads(head_file: Path) -> None:
    one, two = begun(head_file)[0].smash(step(1))
    query, key = begun(head_file, both_views=True)[0].smash(step(1))
    np.testing.assert_array_equal(query, np.concatenate([one, two]))
    np.testing.assert_array_equal(key, np.concatenate([two, one]))


def test_a_round_reads_the_images_that_the_plan_says(head_file: Path) -> None:
    head, pictures = begun(head_file)
    for number in range(STEPS):
        head.smash(step(number))
    order = client_order(
        NUM_IMAGES, CLIENT, seed=SEED, round_index=4, num_images=STEPS * BATCH
    ).tolist()
    assert pictures.reads == [order[0:2], order[2:4], order[4:6]]


def test_a_step_asked_for_again_has_the_same_bits_and_others_have_not(head_file: Path) -> None:
    head, _ = begun(head_file)
    first, _ = head.smash(step(1))
    others = [head.smash(step(2))[0], head.smash(step(1, round_index=5))[0]]
    again, _ = begun(head_file)[0].smash(step(1))  # another process would
    np.testing.assert_array_equal(first, again)
    for other in others:
        assert not np.array_equal(first, other)


def test_it_says_which_head_it_has_and_where_its_state_comes_from(head_file: Path) -> None:
    head = FrozenHead(Pictures(), head_file)
    assert head.digest == ExportedHead(head_file).facts.digest
    assert (head.incarnation, head.head_step, list(head.kept)) == ("", 0, [])
    head.begin(welcome(head_file))
    assert (head.incarnation, head._images.image_size) == ("first", 32)
    head.keep(12)
    assert (head.head_step, list(head.kept)) == (0, [])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"frozen": False}, "it trains its heads; leave --head out"),
        ({"head_digest": "another"}, "head_digest is another there and [0-9a-f]{64} here"),
        ({"image_size": 64}, "image_size is 64 there and 32 here"),
        ({"mean": (0.5, 0.5, 0.5)}, "mean is"),
        ({"std": (0.5, 0.5, 0.5)}, "std is"),
        ({"smashed_shape": (4, 8, 8)}, r"smashed_shape is \(4, 8, 8\) there and \(4, 16, 16\)"),
        ({"compute_dtype": pb.FP64}, "float64"),
    ],
)
def test_a_run_that_the_head_does_not_fit_is_an_error(
    head_file: Path, changes: dict[str, Any], message: str
) -> None:
    head = FrozenHead(Pictures(), head_file)
    with pytest.raises(ValueError, match=message):
        head.begin(welcome(head_file, **changes))
    assert head.incarnation == ""


def test_a_frozen_head_takes_no_gradient_and_no_other_head(head_file: Path) -> None:
    head, _ = begun(head_file)
    for call in (lambda: head.learn(np.zeros(1)), head.weights, lambda: head.take(pb.Head())):
        with pytest.raises(RuntimeError, match="frozen"):
            call()


def test_files_that_are_no_exported_head_are_told_apart(head_file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"head=.*nothing.onnx: no such file"):
        ExportedHead(tmp_path / "nothing.onnx")
    garbage = tmp_path / "garbage.onnx"
    for content in (b"", b"garbage" * 99, head_file.read_bytes()[:2000]):
        garbage.write_bytes(content)
        with pytest.raises(ValueError, match=r"garbage.onnx: (no ONNX file|not written by)"):
            ExportedHead(garbage)
    changed: dict[str, dict[str, str]] = {
        "not written by": {"mocosfl.digest": "17"},
        f"version {PROTOCOL + 1} of the protocol": {"mocosfl.protocol": str(PROTOCOL + 1)},
        "another than it says": {"mocosfl.smashed_shape": "[4, 8, 8]"},
    }
    for message, values in changed.items():
        model = onnx.load(head_file)
        metadata = {prop.key: prop.value for prop in model.metadata_props}
        onnx.helper.set_model_props(model, metadata | values)
        onnx.save(model, garbage)
        with pytest.raises(ValueError, match=message):
            ExportedHead(garbage)


DEVICE_PROGRAM = """
import json, sys
sys.path[:0] = sys.argv[1].split(":")
from pathlib import Path
import numpy as np
from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge.client.frozen_head import FrozenHead

class Pictures:
    pixels = np.load(sys.argv[3])
    def fit(self, image_size): pass
    def __len__(self): return len(self.pixels)
    def read(self, indices): return self.pixels[indices]

for name in ("torch", "onnx", "hydra", "omegaconf", "scipy"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} is there")
head = FrozenHead(Pictures(), Path(sys.argv[2]))
head.begin(pb.Welcome.FromString(sys.stdin.buffer.read()))
rows = [head.smash(pb.StepRequest(step=12 + n, round=4, number=n)) for n in range(3)]
np.save(sys.argv[4], np.array(rows))
print(json.dumps(sorted(name for name in sys.modules if name.startswith("mocosfl."))))
"""


def test_it_runs_where_torch_is_not_installed(
    head_file: Path, compose: Compose, tmp_path: Path
) -> None:
    network = export_small(compose(SMALL), head_file)
    path = device_path(tmp_path / "device")
    np.save(tmp_path / "pixels.npy", Pictures().pixels)
    done = subprocess.run(
        [
            sys.executable, "-I", "-S", "-c", DEVICE_PROGRAM, path,
            str(head_file), str(tmp_path / "pixels.npy"), str(tmp_path / "rows.npy"),
        ],
        input=welcome(head_file).SerializeToString(),
        capture_output=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.decode()) == (0, "")
    rows = np.load(tmp_path / "rows.npy")
    for number in range(STEPS):
        np.testing.assert_allclose(
            rows[number], expected_rows(network, step(number), head_file), atol=3e-5
        )
    assert json.loads(done.stdout) == [
        "mocosfl.data",
        "mocosfl.data.partition",
        "mocosfl.data.round_plan",
        "mocosfl.edge",
        "mocosfl.edge.client",
        "mocosfl.edge.client.exported_head",
        "mocosfl.edge.client.frozen_head",
        "mocosfl.edge.client.pillow_views",
        "mocosfl.edge.federation_pb2",
        "mocosfl.edge.wire",
        "mocosfl.system",
        "mocosfl.system.files",
        "mocosfl.system.metadata",
        "mocosfl.system.randomness",
    ]
