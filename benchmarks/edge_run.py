"""A federation of real streams, or its simulation, as processes that are watched from outside.

The server, a few processes with many clients each, and `train.py` for the simulation are the
commands that a user starts. A row of metrics.csv says that a step is done.
"""

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
from typing import Any, NamedTuple

import numpy as np

from benchmarks.configuration import compose
from benchmarks.machine import ROOT
from mocosfl.data.federated_data import FederatedData
from mocosfl.runs.evaluation_folders import ProbeFolder
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves

POLL_SECONDS = 0.05
LAST_LOSSES = 5  # logged losses whose mean is the loss at the end
END_SECONDS = 60.0  # for clients to end behind the server

Process = subprocess.Popen[bytes]


class Places(NamedTuple):
    """Where the processes run, and how clients reach the server."""

    address: str  # HOST:PORT
    server: tuple[str, ...] = ()  # what the server's command line begins with
    clients: tuple[str, ...] = ()  # the same of each process of clients
    certificates: Path | None = None  # as mocosfl.edge.certificates makes them; None: plain text


class Sample(NamedTuple):
    """A run at a step that it has logged."""

    step: int  # done
    at_seconds: float
    own_bytes: int  # of the server, resident, without pages of files
    server_cpu_seconds: float
    clients_cpu_seconds: float  # of all their processes
    clients_own_bytes: int  # of all their processes


def loopback() -> Places:
    """Return this machine, on a port that nobody listens to now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Places(f"127.0.0.1:{probe.getsockname()[1]}")


def run_networked(
    overrides: Sequence[str],
    folder: Path,
    places: Places,
    *,
    num_processes: int,
) -> dict[str, Any]:
    """Run a networked federation to its end, and return what was seen of it, plain values.

    Args:
        overrides: of the server's command line, but for address, certificates and run folder.
        folder: new; for the clients' images, the run and what the processes say.
        places: of the processes.
        num_processes: that the clients are spread over.

    Raises:
        RuntimeError: a process failed; the message has the end of what it said.
    """
    folder.mkdir(parents=True)
    own = [name for name in overrides if not name.startswith("edge.")]
    num_clients = deal(own, folder / "clients")
    run = RunFolder(folder / "run")
    server_only = [f"run_dir={run.path}", f"edge.listen={places.address}"]
    if places.certificates is not None:
        server_only.append(f"edge.certificates={places.certificates / 'server'}")
    with ExitStack() as processes:
        server = processes.enter_context(
            _process(
                [*places.server, *_module("mocosfl.edge.server"), *overrides, *server_only],
                folder / "server",
            )
        )
        clients = [
            processes.enter_context(
                _process(
                    _clients_command(
                        places, folder / "clients", range(first, num_clients, num_processes)
                    ),
                    folder / f"clients_{first}",
                )
            )
            for first in range(min(num_processes, num_clients))
        ]
        samples = list(_watch(server, clients, run))
        _check_end(server, folder / "server")
        tallies: dict[str, Any] = {}
        for number, client in enumerate(clients):
            client.wait(END_SECONDS)
            _check_end(client, folder / f"clients_{number}")
            tallies |= json.loads((folder / f"clients_{number}.out").read_text())
    return {
        **_summary(samples, run),
        "sent": _total(tallies, "up"),
        "received": _total(tallies, "down"),
        "client_steps": sum(tally["steps"] for tally in tallies.values()),
        "left_out": sum(tally["left_out"] for tally in tallies.values()),
        "reconnects": sum(tally["reconnects"] for tally in tallies.values()),
        "compute_seconds": sum(tally["compute_seconds"] for tally in tallies.values()),
        "server": json.loads(run.edge.read_text())["total"],
    }


def run_simulated(overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run the simulation of a federation, and return what was seen of it, plain values.

    Args:
        overrides: of the command line, but for the run folder; those of `edge` are left out.
        folder: new; for the run and what the process says.

    Raises:
        RuntimeError: it failed; the message has the end of what it said.
    """
    folder.mkdir(parents=True)
    run = RunFolder(folder / "run")
    own = [name for name in overrides if not name.startswith("edge.")]
    with _process([*_module("train"), *own, f"run_dir={run.path}"], folder / "train") as process:
        samples = list(_watch(process, (), run))
        _check_end(process, folder / "train")
    return _summary(samples, run)


def deal(overrides: Sequence[str], folder: Path) -> int:
    """Write each client's images as the simulation deals them, <folder>/<id>/images.npy.

    Returns:
        N, the number of clients.
    """
    data = FederatedData(compose(tuple(overrides)))
    num_clients = len(data.partition.counts)
    for client in range(num_clients):
        (folder / str(client)).mkdir(parents=True)
        images = data.dataset.train.images[data.partition.client(client)]
        np.save(folder / str(client) / "images.npy", images)
    return num_clients


def _clients_command(places: Places, images: Path, clients: Sequence[int]) -> list[str]:
    command = [*places.clients, *_module("benchmarks.edge_clients"), places.address, str(images)]
    if places.certificates is not None:
        command += ["--certificates", str(places.certificates)]
    return [*command, "--clients", *map(str, clients)]


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


@contextmanager
def _process(command: Sequence[str], says: Path) -> Iterator[Process]:
    """Run a command, and end it behind the block if it has not ended.

    Args:
        command: a command line.
        says: what it says goes to files of this name, .out and .err; a pipe might fill up.
    """
    with (
        says.with_suffix(".out").open("w") as out,
        says.with_suffix(".err").open("w") as errors,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=out,
            stderr=errors,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _watch(server: Process, clients: Sequence[Process], run: RunFolder) -> Iterator[Sample]:
    """Yield the run's state whenever it has logged a step, until it ends."""
    last, written = -1, 0.0
    while server.poll() is None:
        for number, client in enumerate(clients):
            if client.poll():  # one that has ended well is through
                server.kill()
                _check_end(client, run.path.parent / f"clients_{number}")
        time.sleep(POLL_SECONDS)
        # Looked at only when it has changed: reading it costs the run time.
        if not run.metrics.is_file() or run.metrics.stat().st_mtime == written:
            continue
        written = run.metrics.stat().st_mtime
        steps, _ = read_curves(run.metrics).get("train/loss", ([], []))
        if steps and steps[-1] > last and (held := _own_bytes(server.pid)):
            last = int(steps[-1])
            yield Sample(
                last + 1,  # steps are logged by number, from 0
                time.perf_counter(),
                held,
                _cpu_seconds(server.pid),
                sum(_cpu_seconds(client.pid) for client in clients),
                sum(_own_bytes(client.pid) for client in clients),
            )


def _own_bytes(pid: int) -> int:
    """Return what a child holds now without pages of files; 0 if it has just ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    sizes = dict(line.split(":", 1) for line in lines)
    if "VmRSS" not in sizes:
        return 0
    held, files = (1024 * int(sizes[key].split()[0]) for key in ("VmRSS", "RssFile"))
    return held - files


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a child so far, all its threads."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def _check_end(process: Process, says: Path) -> None:
    if process.returncode:
        files = (says.with_suffix(suffix) for suffix in (".out", ".err"))
        said = "\n".join(file.read_text()[-4000:] for file in files)
        raise RuntimeError(f"{says.name} ended with {process.returncode}:\n{said}")


def _summary(samples: Sequence[Sample], run: RunFolder) -> dict[str, Any]:
    """Return speed and memory between the first sample and the last; the start is in neither."""
    if len(samples) < 2:
        raise RuntimeError("the run was over before it was seen twice: give it more --steps")
    first, last = samples[0], samples[-1]
    steps = np.array([sample.step for sample in samples])
    held = np.array([sample.own_bytes for sample in samples])
    num_steps = last.step - first.step
    _, losses = read_curves(run.metrics)["train/loss"]
    probes = ProbeFolder(run.probe).results
    return {
        "samples": [sample._asdict() for sample in samples],
        "steps_per_second": num_steps / (last.at_seconds - first.at_seconds),
        "server_cpu_seconds": (last.server_cpu_seconds - first.server_cpu_seconds) / num_steps,
        "clients_cpu_seconds": (last.clients_cpu_seconds - first.clients_cpu_seconds) / num_steps,
        "clients_bytes": last.clients_own_bytes,
        "first_bytes": first.own_bytes,
        "last_bytes": last.own_bytes,
        "most_bytes": int(held.max()),
        "bytes_a_step": float(np.polyfit(steps, held, 1)[0]),
        "losses": losses,
        "loss": float(np.mean(losses[-LAST_LOSSES:])),
        "probes": json.loads(probes.read_text()) if probes.is_file() else None,
    }


def _total(tallies: dict[str, Any], direction: str) -> dict[str, int]:
    """Return bytes by message over all clients, as serialised."""
    total: Counter[str] = Counter()
    for tally in tallies.values():
        total.update(tally[direction])
    return dict(total)
