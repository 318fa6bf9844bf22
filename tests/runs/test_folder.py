"""Configurations of runs that began with an earlier version."""

from pathlib import Path

from omegaconf import OmegaConf

from mocosfl.config.identity import ADDED_KEYS
from mocosfl.runs.folder import RunFolder
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
