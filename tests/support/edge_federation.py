"""A networked federation on this machine: the server in the test's process, clients in others."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mocosfl.config.edge import EdgeConfig
from mocosfl.config.schema import Config
from mocosfl.edge.server.networked_deployment import NetworkedDeployment
from mocosfl.training.deployment import SIMULATION, Deployment
from tests.support.paths import ROOT

CLIENTS_SCRIPT = Path(__file__).with_name("edge_clients_script.py")

EDGE = {
    "listen": "127.0.0.1:0",
    "certificates": None,
    "insecure": False,
    "num_remote": None,
    "min_clients": 1,
    "start_wait_seconds": 60.0,
    "step_deadline_seconds": 30.0,
    "precision": "fp32",
    "max_refusals": 10,
    "keepalive_seconds": 10.0,
    "status_every_seconds": 10.0,
}


def edge(**changes: Any) -> EdgeConfig:
    """Return the settings of a networked server, on a free port."""
    return EdgeConfig(**{**EDGE, "listen": f"127.0.0.1:{free_port()}", **changes})


def free_port() -> int:
    """Return a port that nobody listens to now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def with_edge(config: Config, **changes: Any) -> Config:
    """Give a simulation's configuration remote clients."""
    config.edge = edge(**changes)
    return config


def deployment_of(config: Config) -> Deployment:
    """Return where a configuration's clients are, for `train`."""
    return SIMULATION if config.edge is None else NetworkedDeployment()


def deal(config: Config, folder: Path) -> Path:
    """Write the images that a simulation deals to each client, folder/<id>/images.npy."""
    from mocosfl.data.federated_data import FederatedData

    data = FederatedData(config)
    for client in range(config.clients.num_clients):
        own = folder / str(client)
        own.mkdir(parents=True, exist_ok=True)
        np.save(own / "images.npy", data.dataset.train.images[data.partition.client(client)])
    return folder


def start_clients(
    folder: Path,
    address: str,
    clients: Sequence[int],
    images: Path,
    *,
    certificates: Path | None = None,
    states: Path | None = None,
    give_up_after: float | None = 60,
    **script: Any,
) -> "subprocess.Popen[str]":
    """Start one process for all of these clients; `script`: see edge_clients_script.py."""
    job = {
        "address": address,
        "certificates": None if certificates is None else str(certificates),
        "give_up_after": give_up_after,
        **script,
        "clients": [
            {
                "id": client,
                "images": str(images / str(client)),
                "state": None if states is None else str(states / str(client)),
            }
            for client in clients
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("job_*.json")))
    path = folder / f"job_{number}.json"
    path.write_text(json.dumps(job))
    with (folder / f"clients_{number}.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, str(CLIENTS_SCRIPT), str(path)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )


def tallies(process: "subprocess.Popen[str]", seconds: float = 60) -> dict[int, dict[str, Any]]:
    """Wait for a process of clients to end well, and return what each did."""
    out, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0
    return {tally["client"]: tally for tally in map(json.loads, out.splitlines())}


@contextmanager
def ended(*processes: "subprocess.Popen[str]") -> Iterator[None]:
    """End processes behind a block, whatever happens in it."""
    try:
        yield
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
