"""A run's last lines name what is there, and commands that exist."""

import logging
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mocosfl.config.choices import TaressflMode
from mocosfl.runs.folder import RunFolder
from mocosfl.training.run import train
from mocosfl.training.run_files import closing_words
from tests.support.configurations import Compose


def test_run_ends_with_where_everything_is_and_what_to_try(
    compose_quick: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = RunFolder(tmp_path / "a run")
    with caplog.at_level(logging.INFO):
        train(compose_quick(["trainer.max_steps=1"]), folder, resume=False)
    last = caplog.records[-1].getMessage().splitlines()
    assert last == [
        f"done: {folder.path}",
        f"folder       {folder.path}/",
        "encoder      checkpoints/last.ckpt (best.ckpt: best by kNN)",
        "curves       metrics.csv",
        "overhead     overhead.json",
        "next",
        f"  python linear_probe.py checkpoint='{folder.path}'  # what its features are worth",
        f"  python -m mocosfl.report '{folder.path}'  # all of it as one page",
    ]


def test_next_follows_from_what_the_run_was(compose_quick: Compose, tmp_path: Path):
    config, folder = compose_quick([]), RunFolder(tmp_path)

    def commands(*, has_test_images: bool = True) -> list[str]:
        words = closing_words(config, folder, has_test_images=has_test_images)
        lines = words.partition("next\n")[2].splitlines()
        return [re.split(" checkpoint=| /", line.strip())[0] for line in lines]

    report = "python -m mocosfl.report"
    assert commands() == ["python linear_probe.py", report]
    assert commands(has_test_images=False) == [report]
    folder.probe.mkdir()
    assert commands() == [report]
    OmegaConf.update(config, "taressfl.mode", TaressflMode.expert)
    assert commands()[0] == "python -m mocosfl.attack"
