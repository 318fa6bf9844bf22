"""A run whose clients are other machines is trained and resumed by its own program alone."""

from pathlib import Path

import pytest

from mocosfl.edge.server.networked_deployment import NetworkedDeployment
from mocosfl.runs.folder import RunFolder
from mocosfl.training.deployment import SIMULATION
from mocosfl.training.run import train
from tests.support.configurations import Compose
from tests.support.edge_federation import with_edge


def test_run_is_trained_by_the_program_of_its_clients_alone(
    compose_quick: Compose, tmp_path: Path
) -> None:
    networked, simulated = with_edge(compose_quick([])), compose_quick([])
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match=r"other machines is trained and resumed with python -m"):
        train(networked, folder, resume=False)
    with pytest.raises(ValueError, match=r"simulation is trained and resumed with train\.py"):
        train(simulated, folder, resume=False, deployment=NetworkedDeployment())
    assert not folder.config.exists()
    SIMULATION.check(simulated)
    NetworkedDeployment().check(networked)


def test_missing_certificates_are_told_before_anything_is_written(
    compose_quick: Compose, tmp_path: Path
) -> None:
    config = with_edge(compose_quick([]), certificates=str(tmp_path / "nowhere"))
    folder = RunFolder(Path(config.run_dir))
    with pytest.raises(FileNotFoundError, match=r"edge\.certificates=.*nowhere: no ca\.pem there"):
        train(config, folder, resume=False, deployment=NetworkedDeployment())
    assert not folder.config.exists()
