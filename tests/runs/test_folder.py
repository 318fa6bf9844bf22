"""What a run's folder says of its configuration, and whom it lets in."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from mocosfl.runs.folder import FolderBusy, RunFolder
from tests.support.configurations import Compose


def test_configuration_is_read_back_as_it_was(compose_quick: Compose, tmp_path: Path) -> None:
    folder, config = RunFolder(tmp_path), compose_quick(["trainer.compile=true"])
    folder.save_config(config)
    assert OmegaConf.to_yaml(folder.load_config()) == OmegaConf.to_yaml(config, resolve=True)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("turbo", True, "trainer.turbo is not a key of it"),
        ("compile", None, "trainer.compile: not there"),
        ("max_steps", "all", "trainer.max_steps: Value 'all' of type 'str' could not be converted"),
    ],
)
def test_configuration_of_another_version_is_refused_with_the_key(
    name: str, value: object, problem: str, compose_quick: Compose, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    folder.save_config(compose_quick([]))
    recorded = OmegaConf.load(folder.config)
    assert isinstance(recorded, DictConfig)
    recorded.trainer.pop(name, None)
    if value is not None:
        recorded.trainer[name] = value
    OmegaConf.save(recorded, folder.config)
    says = rf"config\.yaml: not a configuration of this version .*\({re.escape(problem)}"
    with pytest.raises(ValueError, match=says + r".*put it back as it was, or use the version"):
        folder.load_config()


def test_lock_of_a_folder_ends_with_its_process(tmp_path: Path):
    code = (
        "import os, pathlib, sys; from mocosfl.runs.folder import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).locked(): print(flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(FolderBusy, match="another process"), RunFolder(tmp_path).locked():
            pass
        holder.kill()
    with RunFolder(tmp_path).locked():
        pass


def test_pictures_of_the_simulated_attacker_are_in_the_order_of_the_rounds(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.pictures.mkdir()
    for number in (10_000, 9_990, 10):
        folder.attacker_picture(number).touch()
    copy = folder.attacker_picture(10)
    copy.with_stem(f"{copy.stem} (1)").touch()
    assert list(folder.attacker_pictures) == [10, 9_990, 10_000]
    assert folder.attacker_pictures[10] == folder.attacker_picture(10)
