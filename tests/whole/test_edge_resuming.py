"""Machines that die and come back: the run ends as if nothing had happened."""

import logging
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves
from mocosfl.training.run import train
from tests.support.checkpoints import differences, read
from tests.support.configurations import Compose
from tests.support.edge_federation import deployment_of, ended, start_clients, tallies, with_edge
from tests.support.edge_machines import SMALL, make_machines

pytestmark = pytest.mark.slow
log = logging.getLogger(__name__)

NUM_CLIENTS = 3
MINUTES = ["edge.step_deadline_seconds=120", "edge.start_wait_seconds=120"]
MOST = "trainer.max_steps=80"


def tensors_of(folder: RunFolder) -> dict[str, Any]:
    """Return all of a last checkpoint but names, addresses and counts of the streams."""
    checkpoint = read(folder.last)
    del checkpoint["edge"], checkpoint["config"]["edge"]
    return checkpoint


def newest_states(states: Path) -> list[dict[str, Any]]:
    """Return what each client kept last."""
    newest = []
    for client in range(NUM_CLIENTS):
        kept = [torch.load(p) for p in (states / str(client)).glob("kept-*.pt")]
        state = max(kept, key=lambda state: state["step"])
        del state["run"], state["number"]
        newest.append(state)
    return newest


def test_run_whose_server_is_killed_and_then_all_machines_ends_with_the_same_bits(
    compose_quick: Compose, tmp_path: Path
):
    lab = make_machines(compose_quick, tmp_path, MOST, *MINUTES)
    config = with_edge(compose_quick([*SMALL, MOST]), step_deadline_seconds=120)
    folder, states = RunFolder(tmp_path / "whole"), tmp_path / "whole_states"
    process = start_clients(
        tmp_path / "whole_clients", config.edge.listen, range(3), lab.images, states=states
    )
    with ended(process):
        config.run_dir = str(folder.path)
        train(config, folder, resume=False, deployment=deployment_of(config))
        assert all(tally["steps"] == 80 for tally in tallies(process).values())

    killed_states = tmp_path / "killed_states"
    script = {"states": killed_states, "pause_seconds": 0.02, "give_up_after": 120}
    with lab:
        lab.start_server()
        clients = lab.start_clients(0, 1, 2, **script)
        lab.wait_for_step(23)
        assert lab.stand_still(clients) < 75
        lab.kill_server()  # in the middle of a step
        clients.send_signal(signal.SIGCONT)
        lab.start_server()
        begun = time.monotonic()
        lab.wait_for_words(": connected", times=3)
        came_back = time.monotonic() - begun
        lab.wait_for_step(53)
        assert "goes back to a kept state" in lab.client_log(clients)
        assert lab.stand_still(clients) < 78
        lab.kill_server()
        clients.kill()
        lab.start_server()
        clients = lab.start_clients(0, 1, 2, **script)
        assert lab.end_of_server() == 0, lab.log()
        clients.communicate(timeout=30)
        assert clients.returncode == 0
        assert "goes back to a kept state" in lab.client_log(clients)
        assert differences(tensors_of(folder), tensors_of(lab.run)) == []
    for one, other in zip(newest_states(states), newest_states(killed_states), strict=True):
        assert one["step"] == 80 and differences(one, other) == []
    losses = [read_curves(f.metrics)["train/loss"] for f in (folder, lab.run)]
    assert losses[0] == losses[1] and len(losses[0][0]) == 80
    log.info("all clients were back %.1f s after the server was started again", came_back)
