"""Steps a second, the server's memory and all bytes of a federation of real streams.

    python -m benchmarks.edge                    (two cores: some minutes)

One server process, and a few processes with many clients each, all on this machine. The server's
memory is read at every so many steps: flat is what it has to be.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from benchmarks.configuration import Shape, compose, overrides_of, write_noise
from benchmarks.machine import ROOT
from benchmarks.results import Table, make_parser, megabytes, parse, positive, publish, seconds
from mocosfl.data.datamodule import FederatedData
from mocosfl.metrics_log import read_metrics
from mocosfl.run_folder import RunFolder

POLL_SECONDS = 0.1


class Sample(NamedTuple):
    """The server at a step."""

    step: int
    at_seconds: float
    own_bytes: int  # resident, without pages of files


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    options = parse(_parser(), arguments)
    with TemporaryDirectory() as scratch:
        found = {p: _measure(p, options, Path(scratch) / p) for p in options.precisions}
    publish("edge", options, [_speed(found, options), _traffic(found)], {"precisions": found})


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("Steps a second, memory and bytes of real streams.", repeats=1)
    add = parser.add_argument
    add("--clients", type=positive, default=100, help="N, all of them in the pool")
    add("--processes", type=positive, default=4, help="that the clients are spread over")
    add("--steps", type=positive, default=1000)
    add("--every", type=positive, default=50, help="steps between two looks at the memory")
    add(
        "--precisions",
        choices=("fp32", "fp16", "int8"),
        nargs="+",
        default=["fp32"],
        help="on the wire",
    )
    add("--images-per-client", type=positive, default=50, help="and so steps of a round")
    add("--image-size", type=positive, default=32, help="side, pixels")
    add("--width", type=positive, default=16, help="of ResNet-18; 64 is full size")
    add("--cut", type=positive, default=1, help="cut layer")
    add("--precision", choices=("fp32",), default="fp32", help="of the arithmetic")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more of the configuration")
    return parser


def _measure(precision: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Run one federation and return what was seen of it."""
    overrides = _overrides(options, scratch)
    _deal(overrides, scratch / "clients")
    run, address = scratch / "run", f"127.0.0.1:{_free_port()}"
    server_only = [f"edge.listen={address}", f"edge.precision={precision}"]
    server_only += [f"run_dir={run}", f"edge.min_clients={options.clients}"]
    with ExitStack() as processes:
        server = processes.enter_context(
            _process("mocosfl.edge.server", *overrides, *server_only, log=scratch / "server.log")
        )
        clients = [
            processes.enter_context(
                _process(
                    "benchmarks.edge_clients",
                    address,
                    str(scratch / "clients"),
                    *(str(client) for client in range(first, options.clients, options.processes)),
                    log=scratch / f"clients_{first}.log",
                )
            )
            for first in range(min(options.processes, options.clients))
        ]
        samples = list(_watch(server, run, options.every))
        tallies: dict[str, Any] = {}
        for client in clients:
            out, _ = client.communicate(timeout=60)
            tallies |= json.loads(out.splitlines()[-1])
    _check_end(server, scratch / "server.log")
    return {
        "samples": [sample._asdict() for sample in samples],
        **_summary(samples),
        "sent": _total(tallies, "up"),
        "received": _total(tallies, "down"),
        "client_steps": sum(tally["steps"] for tally in tallies.values()),
        "left_out": sum(tally["left_out"] for tally in tallies.values()),
        "server": json.loads(RunFolder(run).edge.read_text())["total"],
    }


def _overrides(options: argparse.Namespace, scratch: Path) -> tuple[str, ...]:
    num_images = options.clients * options.images_per_client
    data = write_noise(scratch / "images", num_images=num_images, image_size=options.image_size)
    shape = Shape(
        num_clients=options.clients,
        pool_size=options.clients,
        cut_layer=options.cut,
        width=options.width,
        steps_per_block=1,
    )
    return (
        *overrides_of(shape, options, data),
        "split.bottleneck_channels=4",
        "split.bottleneck_stride=2",
        f"trainer.max_steps={options.steps}",
        "trainer.log_every_steps=1",  # the row of a step in metrics.csv is how we see it
    )


def _deal(overrides: tuple[str, ...], folder: Path) -> None:
    """Write each client's images as the simulation deals them."""
    data = FederatedData(compose(overrides))
    for client in range(len(data.partition.counts)):
        (folder / str(client)).mkdir(parents=True)
        images = data.dataset.train.images[data.partition.client(client)]
        np.save(folder / str(client) / "images.npy", images)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(module: str, *arguments: str, log: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run a module, and end it behind the block if it has not ended."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *arguments]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _watch(server: "subprocess.Popen[str]", run: Path, every: int) -> Iterator[Sample]:
    """Yield the server's state whenever it has done so many steps, until it ends."""
    due = every
    while server.poll() is None:
        time.sleep(POLL_SECONDS)
        rows = read_metrics(RunFolder(run).metrics)
        step = int(float(rows[-1]["step"])) if rows else 0
        if step >= due and (held := _own_bytes(server.pid)):
            yield Sample(step, time.perf_counter(), held)
            due = step - step % every + every


def _own_bytes(pid: int) -> int:
    """Return what a child holds now without pages of files; 0 if it has just ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    sizes = dict(line.split(":", 1) for line in lines)
    if "VmRSS" not in sizes:
        return 0
    held, files = (1024 * int(sizes[key].split()[0]) for key in ("VmRSS", "RssFile"))
    return held - files


def _check_end(server: "subprocess.Popen[str]", log: Path) -> None:
    if server.returncode:
        raise RuntimeError(f"the server ended with {server.returncode}:\n{log.read_text()[-4000:]}")


def _summary(samples: Sequence[Sample]) -> dict[str, float]:
    """Return speed and memory between the first sample and the last; the start is in neither."""
    first, last = samples[0], samples[-1]
    steps = np.array([sample.step for sample in samples])
    held = np.array([sample.own_bytes for sample in samples])
    return {
        "steps_per_second": (last.step - first.step) / (last.at_seconds - first.at_seconds),
        "first_bytes": first.own_bytes,
        "last_bytes": last.own_bytes,
        "most_bytes": int(held.max()),
        "bytes_a_step": float(np.polyfit(steps, held, 1)[0]),
    }


def _total(tallies: dict[str, Any], direction: str) -> dict[str, int]:
    """Return bytes by message over all clients, as serialised."""
    total: Counter[str] = Counter()
    for tally in tallies.values():
        total.update(tally[direction])
    return dict(total)


def _speed(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> Table:
    columns = ["wire", "steps/s", "a step", "memory, first", "last", "most", "growth a step"]
    rows = [
        [
            precision,
            f"{result['steps_per_second']:.3g}",
            seconds(1 / result["steps_per_second"]),
            *(megabytes(result[f"{which}_bytes"]) for which in ("first", "last", "most")),
            f"{result['bytes_a_step'] / 1024:.2f} KB",
        ]
        for precision, result in found.items()
    ]
    notes = [
        f"{options.clients} clients in {options.processes} processes on the server's own machine; "
        f"memory of the server every {options.every} steps, without pages of files.",
    ]
    return Table("Steps and the server's memory", columns, rows, notes)


def _traffic(found: dict[str, dict[str, Any]]) -> Table:
    columns = ["wire", "", "tensors", "predicted", "messages", "messages, by the clients' count"]
    rows = []
    for precision, result in found.items():
        server = result["server"]
        tensors = {
            "up": server["smashed_up"] + server["weights_up"],
            "down": server["gradients_down"] + server["weights_down"],
        }
        for direction, clients in (("up", "sent"), ("down", "received")):
            counted = tensors[direction], server[f"predicted_{direction}"], server[direction]
            numbers = [f"{number:,}" for number in (*counted, sum(result[clients].values()))]
            rows.append([precision, direction, *numbers])
    return Table("Bytes of all clients", columns, rows)


if __name__ == "__main__":
    main()
