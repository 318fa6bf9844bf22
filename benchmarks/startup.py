"""Seconds and memory until the first step is done, against the number of clients.

    python -m benchmarks.startup                 (two cores: about three minutes)

Each start is a fresh process, which ends behind its first step; the numbers of clients take turns.
The pictures that a run begins with are drawn too.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.configuration import Shape, overrides_of, write_noise
from benchmarks.first_step import PHASES
from benchmarks.machine import ROOT
from benchmarks.results import (
    Table,
    make_parser,
    megabytes,
    parse,
    positive,
    publish,
    seconds,
    spread,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    options = parse(_parser(), arguments)
    starts: dict[int, list[dict[str, Any]]] = {number: [] for number in options.clients}
    with TemporaryDirectory() as scratch:
        overrides = {
            number: _overrides(number, options, Path(scratch) / str(number)) for number in starts
        }
        for number_of_round in range(options.repeats):
            first = number_of_round % len(options.clients)
            for number in options.clients[first:] + options.clients[:first]:
                starts[number].append(_start(overrides[number], options))
    publish("startup", options, [_table(starts)], {"starts": starts})


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("Seconds and memory until the first step is done.", repeats=3)
    add = parser.add_argument
    add("--clients", type=positive, nargs="+", default=[100, 1000, 10_000, 100_000], help="N")
    add("--pool", type=positive, default=100, help="clients of a round, at most N")
    add("--state", choices=("stateless", "bank"), default="stateless")
    add("--images-per-client", type=positive, default=2)
    add("--image-size", type=positive, default=32, help="side, pixels")
    add("--width", type=positive, default=64, help="of ResNet-18; 64 is full size")
    add("--precision", choices=("fp32", "bf16"), default="fp32")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more of the configuration")
    return parser


def _overrides(num_clients: int, options: argparse.Namespace, folder: Path) -> tuple[str, ...]:
    num_images = num_clients * options.images_per_client
    data = write_noise(folder, num_images=num_images, image_size=options.image_size)
    shape = Shape(
        num_clients=num_clients,
        pool_size=options.pool,
        cut_layer=1,
        width=options.width,
        steps_per_block=options.images_per_client,
        client_state=options.state,
    )
    return (*overrides_of(shape, options, data), "callbacks.pictures=true")


def _start(overrides: tuple[str, ...], options: argparse.Namespace) -> dict[str, Any]:
    """Run one process, and return what it prints."""
    command = [sys.executable, "-m", "benchmarks.first_step", options.device, *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a start failed, exit code {done.returncode}:\n{done.stderr}")
    start: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return start


def _table(starts: dict[int, list[dict[str, Any]]]) -> Table:
    columns = ["clients", *PHASES, "together", "memory"]
    rows = []
    for number, repeats in starts.items():
        phases = [[repeat["seconds"][phase] for repeat in repeats] for phase in PHASES]
        totals = [sum(repeat["seconds"].values()) for repeat in repeats]
        peak = max(max(repeat["own_bytes"].values()) for repeat in repeats)
        middles = [seconds(spread(of).median) for of in (*phases, totals)]
        rows.append([f"{number:,}", *middles, megabytes(peak)])
    notes = [
        "Medians of the repeats. `files`: configuration, plan, partition and pictures. Memory: "
        "the peak of the process, PyTorch included, without pages of files and without a GPU's.",
    ]
    return Table("From the start of the process to the end of its first step", columns, rows, notes)


if __name__ == "__main__":
    main()
