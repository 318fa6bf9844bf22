"""Configurations of runs that began with an earlier version."""

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mocosfl.config.identity import ADDED_KEYS
from mocosfl.runs.folder import FolderBusy, RunFolder
from tests.support.configurations import Compose


def test_run_from_before_a_key_goes_on_as_it_did(compose_quick: Compose, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save_config(compose_quick(["trainer.compile=true"]))
    assert folder.load_config().trainer.compile is True
    recorded = OmegaConf.load(folder.config)
    for key in ADDED_KEYS:
        del recorded.trainer[key]
    OmegaConf.save(recorded, folder.config)

    trainer = folder.load_config().trainer

    assert {key: getattr(trainer, key) for key in ADDED_KEYS} == ADDED_KEYS
    assert trainer.num_threads == 1


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
