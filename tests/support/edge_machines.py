"""A networked server and its clients as processes of their own, to be frozen, killed, started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mocosfl.config.schema import Config
from mocosfl.edge.certificates import make_certificates
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_metrics
from tests.support.configurations import QUICK
from tests.support.edge_federation import deal, free_port, start_clients
from tests.support.edge_streams import wait_until
from tests.support.paths import ROOT

SMALL = [
    "clients.num_clients=3",
    "clients.participation=1",
    "clients.batch_size=4",
    "clients.num_rounds=20",
    "clients.syncs_per_round=8",
    "callbacks.knn_every_rounds=0",
    "callbacks.checkpoint_every_steps=10",
]


class Machines:
    """One server and some clients; every process has a log."""

    def __init__(
        self, folder: Path, overrides: Sequence[str], images: Path, certificates: Path | None = None
    ) -> None:
        """Choose a port; nothing runs yet.

        Args:
            folder: for all that is written.
            overrides: of the server.
            images: with a folder for each client.
            certificates: that `make_certificates` made; None: in plain text.
        """
        self.folder, self.overrides, self.images = folder, list(overrides), images
        self.certificates = certificates
        self.address = f"127.0.0.1:{free_port()}"
        self.run = RunFolder(folder / "run")
        self.server: subprocess.Popen[bytes] | None = None
        self.clients: list[subprocess.Popen[str]] = []
        self._logs: list[Path] = []

    def start_server(self) -> None:
        """Start the run, or go on with it."""
        where = f"edge.listen={self.address}"
        if self.run.config.is_file():
            arguments = [f"resume={self.run.path}", where]
        else:
            arguments = [*self.overrides, f"run_dir={self.run.path}", where]
            if self.certificates is not None:
                arguments.append(f"edge.certificates={self.certificates / 'server'}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._logs.append(self.folder / f"server_{len(self._logs)}.log")
        with self._logs[-1].open("wb") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "mocosfl.edge.server", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )

    def start_clients(self, *clients: int, **script: Any) -> "subprocess.Popen[str]":
        """Start one process for some clients."""
        certificates = None if self.certificates is None else self.certificates / "clients"
        process = start_clients(
            self.folder / "clients",
            self.address,
            clients,
            self.images,
            certificates=certificates,
            **script,
        )
        self.clients.append(process)
        return process

    def log(self) -> str:
        """Return what the newest server process has said."""
        return self._logs[-1].read_text()

    def client_log(self, process: "subprocess.Popen[str]") -> str:
        """Return what a process of clients has said."""
        number = self.clients.index(process)
        return (self.folder / "clients" / f"clients_{number}.log").read_text()

    def steps(self) -> int:
        """Return the steps that the run has logged."""
        return len(read_metrics(self.run.metrics))

    def wait_for_step(self, step: int, seconds: float = 120) -> None:
        """Wait until so many steps are done."""
        self._wait(lambda: self.steps() >= step, seconds)

    def wait_for_words(self, words: str, times: int = 1, seconds: float = 120) -> None:
        """Wait until the server has said something so many times."""
        self._wait(lambda: self.log().count(words) >= times, seconds)

    def _wait(self, true: Any, seconds: float) -> None:
        def alive_and_true() -> bool:
            done = bool(true())
            assert done or (self.server is not None and self.server.poll() is None), self.log()
            return done

        wait_until(alive_and_true, seconds)

    def stand_still(self, process: "subprocess.Popen[str]") -> int:
        """Freeze clients that the run can't do without in a step; returns the steps done then.

        Clients that were late already, as on a slow machine, it does without: then the steps go on.
        """
        process.send_signal(signal.SIGSTOP)
        before, since = self.steps(), time.monotonic()
        without = before + 20
        while time.monotonic() - since < 0.3 and before < without:
            time.sleep(0.02)
            if self.steps() != before:
                before, since = self.steps(), time.monotonic()
        return before

    def kill_server(self) -> None:
        """Kill -9."""
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def end_of_server(self, seconds: float = 120) -> int:
        """Wait for the server's end; returns its exit code."""
        assert self.server is not None
        return self.server.wait(seconds)

    def __enter__(self) -> "Machines":
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.server, *self.clients):
            if process is not None and process.poll() is None:
                process.kill()
        for process in (self.server, *self.clients):
            if process is not None:
                process.communicate()


def make_machines(
    compose_quick: Callable[[Sequence[str]], Config], folder: Path, *overrides: str
) -> Machines:
    """Deal the images of the run `SMALL` to three clients, with certificates for all."""
    config = compose_quick(SMALL)
    images = deal(config, folder / "images")
    certificates = folder / "certificates"
    make_certificates(certificates, num_clients=3, server_names=["127.0.0.1"], days=2)
    every = [f"data_dir={config.data_dir}", *QUICK, *SMALL, *overrides]
    return Machines(folder / "machines", every, images, certificates)
