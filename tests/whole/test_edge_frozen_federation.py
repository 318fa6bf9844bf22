"""A federation whose clients run an exported head, in a process without torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mocosfl.encoders.export_head import write_head
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves
from mocosfl.training.initial_weights import fresh_encoder
from mocosfl.training.run import train
from tests.support.configurations import Compose
from tests.support.device_packages import device_path
from tests.support.edge_federation import deal, deployment_of, ended, with_edge

FROZEN = [
    "clients.num_clients=4",
    "clients.participation=0.5",
    "clients.batch_size=16",
    "clients.num_rounds=2",
    "split=cut1_c4s2",
    "optimizer.client_lr=0",
    "callbacks.knn_every_rounds=0",
]
PROGRAM = """
import asyncio, json, sys
sys.path[:0] = sys.argv[1].split(":")
from pathlib import Path
from mocosfl.edge.client.server_connection import ServerAddress
from mocosfl.edge.client.frozen_head import FrozenHead
from mocosfl.edge.client.own_images import OwnImages
from mocosfl.edge.client.participation import take_part

async def one(client):
    images = OwnImages(Path(sys.argv[3]) / str(client))
    head = FrozenHead(images, Path(sys.argv[4]))
    return await take_part(
        head,
        ServerAddress(sys.argv[2], None),
        num_images=len(images),
        client=client,
        give_up_after=60,
    )

async def all_of_them():
    return await asyncio.gather(*(one(client) for client in range(4)))

tallies = asyncio.run(all_of_them())
assert "torch" not in sys.modules
print(json.dumps([{"steps": t.steps, "left_out": t.left_out, "images": t.images} for t in tallies]))
"""


@pytest.mark.slow
def test_a_server_trains_on_what_exported_heads_send(
    compose_quick: Compose, tmp_path: Path
) -> None:
    config = with_edge(compose_quick(FROZEN))
    assert config.edge is not None
    deal(config, tmp_path / "images")
    write_head(fresh_encoder(config), tmp_path / "head.onnx")
    path = device_path(tmp_path / "device")
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, path, config.edge.listen]
    command += [str(tmp_path / "images"), str(tmp_path / "head.onnx")]
    clients = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder = RunFolder(Path(config.run_dir))
    with ended(clients):
        module = train(config, folder, resume=False, deployment=deployment_of(config))
        out, errors = clients.communicate(timeout=60)
    assert clients.returncode == 0, errors
    found = json.loads(out)
    assert sum(tally["steps"] for tally in found) == 2 * module.global_step > 20
    assert sum(tally["left_out"] for tally in found) == 0
    # The simulation's views are other draws, so that the curves are alike and not the same.
    simulated = RunFolder(tmp_path / "simulated")
    config.edge, config.run_dir = None, str(simulated.path)
    train(config, simulated, resume=False)
    losses = [np.mean(read_curves(run.metrics)["train/loss"][1]) for run in (folder, simulated)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
