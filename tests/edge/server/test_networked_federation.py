"""A federation with remote clients equals its simulation, without a network in between."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mocosfl.config.schema import Config
from mocosfl.edge.server import build
from mocosfl.edge.server.networked_module import NetworkedMocoSFL
from mocosfl.runs.checkpoint import read_checkpoint
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves
from mocosfl.training.run import train
from tests.support.configurations import Compose
from tests.support.direct_remote_clients import DirectRemoteClients
from tests.support.edge_federation import deal, deployment_of, with_edge

SMALL = [
    "clients.num_clients=8",
    "clients.participation=0.5",
    "clients.batch_size=16",
    "clients.num_rounds=2",
    "trainer.precision=fp64",
    "callbacks.knn_every_rounds=0",
]


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(DirectRemoteClients, "images", tmp_path / "images", raising=False)
    monkeypatch.setattr(build, "RemoteClients", DirectRemoteClients)


def run(config: Config, name: str) -> tuple[NetworkedMocoSFL, RunFolder]:
    folder = RunFolder(Path(config.run_dir).with_name(name))
    config.run_dir = str(folder.path)
    module: Any = train(config, folder, resume=False, deployment=deployment_of(config))
    return module, folder


def both(
    compose_quick: Compose, tmp_path: Path, overrides: Sequence[str], num_remote: int | None
) -> tuple[NetworkedMocoSFL, dict[str, Any], dict[str, Any]]:
    """Run a simulation and the same with remote clients; returns both last checkpoints."""
    _, simulated = run(compose_quick([*SMALL, *overrides]), "simulated")
    config = compose_quick([*SMALL, *overrides])
    deal(config, tmp_path / "images")
    config = with_edge(config, num_remote=num_remote, precision="fp64")
    module, networked = run(config, "networked")
    curves = [read_curves(folder.metrics)["train/loss"][1] for folder in (simulated, networked)]
    assert curves[0] == pytest.approx(curves[1], rel=1e-7) and len(curves[0]) > 10
    return module, read_checkpoint(simulated.last), read_checkpoint(networked.last)


def assert_same_server(one: dict[str, Any], other: dict[str, Any]) -> None:
    states = [checkpoint["state_dict"] for checkpoint in (one, other)]
    names = [name for name in states[0] if name.startswith("federation.server")]
    assert names
    for name in names:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-9, atol=1e-11)


SETTINGS = {
    "one-sided": ["moco.symmetric=none"],
    "two-sided": ["moco.symmetric=server"],
    "both views": ["moco.symmetric=full"],
    "aligned momentum": ["method=monacosfl"],
    "private queues": ["moco.feature_sharing=false"],
    "drop-out": ["clients.dropout_probability=0.4"],
    "divergence-aware": ["averaging=divergence_aware"],
    "rich and poor": ["heterogeneity=rich_poor", "heterogeneity.rich_batch_factor=2"],
    "by images": ["averaging=by_images", "partition=quantity_skew"],
    "frozen": ["optimizer.client_lr=0"],
}


FAST = [("aligned momentum", 3)]
CASES = [
    pytest.param(
        overrides,
        num_remote,
        marks=[] if (name, num_remote) in FAST else [pytest.mark.slow],
        id=f"{name}, {'all' if num_remote is None else 'some'} remote",
    )
    for name, overrides in SETTINGS.items()
    for num_remote in (None, 3)
]


@pytest.mark.parametrize(("overrides", "num_remote"), CASES)
def test_remote_clients_train_as_simulated_ones(
    compose_quick: Compose, tmp_path: Path, overrides: list[str], num_remote: int | None
) -> None:
    _, simulated, networked = both(compose_quick, tmp_path, overrides, num_remote)
    assert_same_server(simulated, networked)
    heads = "federation.clients.online."
    for name, tensor in simulated["state_dict"].items():
        if name.startswith(heads):  # a sync ends the run, so that the mirrors are the clients'
            other = networked["state_dict"][name]
            torch.testing.assert_close(tensor, other, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_clients_outside_the_pool_take_the_current_head_when_they_come_in(
    compose_quick: Compose, tmp_path: Path
) -> None:
    module, _, _ = both(compose_quick, tmp_path, [], None)
    remote: Any = module.federation.remote_clients
    assert remote.heads_given > 0 and remote.finished


@pytest.mark.slow
def test_narrow_wires_stay_near_the_simulation(compose_quick: Compose, tmp_path: Path) -> None:
    overrides = [*SMALL[:-2], "callbacks.knn_every_rounds=0"]
    curves = {}
    deal(compose_quick(overrides), tmp_path / "images")
    for precision in ("fp32", "fp16", "int8"):
        config = with_edge(compose_quick(overrides), precision=precision)
        _, folder = run(config, precision)
        curves[precision] = torch.tensor(read_curves(folder.metrics)["train/loss"][1])
    apart = {p: float((curves[p] - curves["fp32"]).abs().max()) for p in ("fp16", "int8")}
    assert 0 < apart["fp16"] < 0.1 and 0 < apart["int8"] < 0.5


@pytest.mark.slow
def test_client_counts_by_the_images_that_it_holds(compose_quick: Compose, tmp_path: Path) -> None:
    overrides = [*SMALL, "averaging=by_images"]
    config = compose_quick(overrides)
    deal(config, tmp_path / "images")
    own = tmp_path / "images" / "5" / "images.npy"
    np.save(own, np.load(own)[:40])
    module, _ = run(with_edge(config, precision="fp64"), "networked")
    counts = module.federation.clients.averager.image_counts.tolist()
    assert counts[5] == 40 and sum(counts) < 1437
