"""Memory, bytes and speed of a client with an exported, frozen head; without torch.

    python -m benchmarks.edge_memory                 (half a minute)

The published setting: CIFAR-10's 32 px, ResNet-18, C4S2, an image a step, 50 images, 200 epochs.
Each client is a fresh process that does its steps, views included, without a network. The head's
weights are random, which costs the same.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from benchmarks.configuration import compose
from benchmarks.machine import ROOT
from benchmarks.results import Table, make_parser, parse, positive, publish, spread
from mocosfl.config.schema import Config
from mocosfl.data.view_maker import view_settings
from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.client.exported_head import HeadFacts
from mocosfl.encoders.export_head import write_head
from mocosfl.models.build import build_split
from mocosfl.runs.checkpoint import Encoder

PUBLISHED_IMAGES, PUBLISHED_EPOCHS = 50, 200  # of a client
PUBLISHED_MEGABYTES = 39.1  # MocoSFL paper, table 1: the smashed data of an image once, in fp32
PUBLISHED_MEMORY = "under 5 MB"  # the published README, of a Raspberry Pi 4

Found = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    options = parse(_parser(), arguments)
    found: dict[str, list[Found]] = {}
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for split in options.splits:
            config = compose(("dataset=cifar10", f"split={split}", _width(options)))
            facts = _write_head(config, folder / "head.onnx")
            (folder / "welcome").write_bytes(_welcome(config, facts).SerializeToString())
            found[split] = [_run(folder, options.steps) for _ in range(options.repeats)]
    shape = facts.smashed_shape
    publish("edge_memory", options, [_memory_table(found), _traffic_table(shape)], {"runs": found})


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("Memory, bytes and speed of a client with a frozen head.", repeats=3)
    add = parser.add_argument
    add("--splits", nargs="+", default=["cut1_c4s2", "cut2_c4s2"], help="choices of `split`")
    add("--width", type=positive, default=64, help="of ResNet-18; 64 is full size")
    add("--steps", type=positive, default=200, help="of a measurement")
    return parser


def _width(options: argparse.Namespace) -> str:
    return f"backbone.width={options.width}"


def _write_head(config: Config, file: Path) -> HeadFacts:
    torch.manual_seed(0)
    split = build_split(config)
    network = nn.Sequential(split.head, split.trunk).requires_grad_(False).eval()
    return write_head(Encoder(network, config, 0, "random weights"), file).facts


def _welcome(config: Config, facts: HeadFacts) -> pb.Welcome:
    settings = pb.Settings(
        views=pb.Views(**asdict(view_settings(config))),
        image_size=facts.image_size,
        mean=facts.mean,
        std=facts.std,
        batch_size=1,
        steps_per_round=PUBLISHED_IMAGES,
        frozen=True,
        smashed_dtype=pb.FP32,
        compute_dtype=pb.FP32,
        smashed_shape=facts.smashed_shape,
        head_digest=facts.digest,
    )
    return pb.Welcome(settings=settings, go_on=True)


def _run(folder: Path, num_steps: int) -> Found:
    """Run one process, and return what it prints."""
    command = [sys.executable, "-m", "benchmarks.frozen_client"]
    command += [str(folder / "head.onnx"), str(folder / "welcome"), str(num_steps)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a client failed, exit code {done.returncode}:\n{done.stderr}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def _memory_table(found: dict[str, list[Found]]) -> Table:
    columns = ["split", "process at its peak", "without pages of files", "after the imports"]
    columns += ["growth", "head and activations", "published", "steps/s"]
    rows = []
    for split, repeats in found.items():
        middle = {key: spread([r[key] for r in repeats]).median for key in repeats[0]}
        growth = middle["peak_bytes"] - middle["imports_bytes"]
        sizes = [middle["peak_bytes"], middle["peak_own_bytes"], middle["imports_bytes"], growth]
        cells = [_megabytes(size) for size in (*sizes, middle["working_bytes"])]
        speed = f"{1 / middle['seconds_a_step']:,.0f}"
        rows.append([split, *cells, PUBLISHED_MEMORY, speed])
    notes = [
        "Resident memory, medians of the repeats. Pages of files are the libraries' code, which "
        "the system drops when it is short. Growth: the peak above what the imports (onnxruntime, "
        "grpcio, protobuf, NumPy, Pillow) had left. Head and activations: the same "
        "once more in that process, so without what the libraries read and set up at their first "
        "use; the published figure is of this kind."
    ]
    return Table("Memory and speed of a client", columns, rows, notes)


def _traffic_table(smashed_shape: tuple[int, int, int]) -> Table:
    columns = ["precision", "bytes a step", "its message", "MB in 200 epochs of 50", "published"]
    rows = []
    for name in ("fp32", "fp16", "int8"):
        shape, dtype = (1, *smashed_shape), wire.DTYPES[name]
        tensor = wire.encode_tensor(torch.randn(shape).numpy(), dtype)
        message = pb.ClientMessage(smashed=pb.Smashed(step=100_000, query=tensor, key=tensor))
        num_bytes = 2 * wire.num_tensor_bytes(dtype, shape)
        whole_run = num_bytes * PUBLISHED_IMAGES * PUBLISHED_EPOCHS
        cells = [f"{num_bytes:,}", f"{message.ByteSize():,}", f"{whole_run / 2**20:.1f}"]
        rows.append([name, *cells, f"{PUBLISHED_MEGABYTES}" if name == "fp32" else "-"])
    notes = [
        "Query and key, an image a step, MB of 2^20 bytes; behind `its message` with its protobuf "
        "envelope. The published figure counts one of the two."
    ]
    return Table("What a client sends", columns, rows, notes)


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 2**20:.1f} MB"


if __name__ == "__main__":
    main()
