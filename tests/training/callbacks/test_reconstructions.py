"""A run with attackers draws what these make of the smashed data."""

from pathlib import Path

from mocosfl.runs.folder import RunFolder
from mocosfl.training.run import train
from tests.support.configurations import Compose


def test_pictures_show_what_the_attacker_sees(compose_expert: Compose, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    train(compose_expert(["callbacks.pictures=true", "trainer.max_steps=2"]), folder, resume=False)
    names = {file.name for file in folder.pictures.iterdir()}
    assert {"reconstructions_round0001.png", "views.png", "curves.png"} <= names
    assert "partition.png" not in names  # an expert has no clients
