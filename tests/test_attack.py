"""`python -m mocosfl.attack` on the quick run, and what it refuses."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from mocosfl.attack import run_attack
from mocosfl.data.partition import Partition
from mocosfl.privacy.attack.images import choose_images
from mocosfl.runs.checkpoint import read_encoder
from mocosfl.runs.folder import RunFolder
from mocosfl.tracking import loggers
from tests.support.attack_settings import settings
from tests.support.paths import ROOT


def attack(path: Path, *overrides: str, into: Path | None = None) -> dict[str, Any]:
    """Attack a checkpoint; return what was written."""
    config = settings(*overrides)
    config.checkpoint = str(path)
    config.output_dir = None if into is None else str(into)
    run_attack(config)
    file = (into or path / "attack") / "attack.json"

    def refused(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return cast(dict[str, Any], json.loads(file.read_text(), parse_constant=refused))


def rewrite(run: RunFolder, changes: dict[str, Any]) -> None:
    """Change values of the configuration in a run's checkpoint."""
    checkpoint = torch.load(run.last, weights_only=True)
    for key, value in changes.items():
        *groups, name = key.split(".")
        group = checkpoint["config"]
        for part in groups:
            group = group[part]
        assert name in group
        group[name] = value
    torch.save(checkpoint, run.last)


def test_attack_of_a_run_writes_numbers_and_a_picture(
    run_copy: RunFolder, capsys: pytest.CaptureFixture[str]
):
    found = attack(run_copy.path)
    assert found["encoder_step"] == 21
    assert found["num_images"] == 6
    assert found["num_known"] == round(0.02 * 1438)
    assert found["settings"]["seed"] == 1234
    assert set(found["attacks"]) == {"decoder", "optimisation", "mean image"}
    for values in found["attacks"].values():
        assert set(values) == {"mse", "ssim", "ssim_torchmetrics", "psnr", "per_image"}
        per_image = values["per_image"]["mse"]
        assert len(per_image) == 6
        assert values["mse"]["mean"] == pytest.approx(np.mean(per_image))
        assert values["mse"]["std"] == pytest.approx(np.std(per_image))
    with Image.open(run_copy.attack / "reconstructions.png") as picture:
        assert picture.size[0] > 300
    out = capsys.readouterr().out
    for words in ("victims: 6 images of client 0", "decoder", "optimisation", "+-", "results: "):
        assert words in out


def test_victims_are_the_clients_and_unknown_to_the_attacker(run_copy: RunFolder):
    found = attack(run_copy.path, "attack.client=7")
    held = Partition.load(run_copy.partition).client(7)
    assert found["client"] == 7
    assert set(found["victims"]) <= set(held.tolist())
    assert len(set(found["victims"])) == 6


def test_every_image_but_the_victims_may_be_known_and_no_more(run_copy: RunFolder):
    most = f"attack.known_fraction={1432 / 1438}"
    config = settings("attack.num_images=6", most)
    images = choose_images(config, read_encoder(run_copy.last).config, run_copy)
    assert len(images.known) == 1432
    assert len(np.intersect1d(images.known, images.victims)) == 0
    with pytest.raises(ValueError, match="only 1432 are no victims"):
        attack(run_copy.path, f"attack.known_fraction={1433 / 1438}")


def test_same_seed_gives_the_same_numbers_and_another_seed_others(
    run_copy: RunFolder, tmp_path: Path
):
    one, same, other = (
        attack(run_copy.path, f"seed={seed}", into=tmp_path / str(index))
        for index, seed in enumerate((5, 5, 6))
    )
    for found in (one, same, other):
        found.pop("seconds")
        found.pop("settings")
    assert one == same
    assert one["victims"] != other["victims"]


def test_client_with_fewer_images_gives_all(run_copy: RunFolder, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    found = attack(run_copy.path, "attack.num_images=100", "attack.optimisation_steps=1")
    held = Partition.load(run_copy.partition).client(0)
    assert found["victims"] == sorted(held.tolist())
    assert (found["num_images_asked"], found["num_images"]) == (100, len(held))
    assert "all of them are attacked" in caplog.text


@pytest.mark.parametrize("changes", [{"clients.num_clients": 1}, {"taressfl.mode": "expert"}])
def test_victims_of_an_expert_or_a_single_client_come_from_all_training_images(
    quick_run: RunFolder, changes: dict[str, Any]
):
    config = quick_run.load_config()
    for key, value in changes.items():
        OmegaConf.update(cast(DictConfig, config), key, value)
    images = choose_images(settings("attack.num_images=60"), config, quick_run)
    assert len(images.victims) == 60  # the partition's client 0 has 14 or 15
    assert images.client is None
    with pytest.raises(ValueError, match=r"attack\.client=1: "):
        choose_images(settings("attack.client=1"), config, quick_run)


def test_lone_checkpoint_is_attacked_with_the_images_dealt_anew(
    quick_run: RunFolder, tmp_path: Path
):
    lone = tmp_path / "lone" / "x.ckpt"
    lone.parent.mkdir()
    shutil.copy(quick_run.last, lone)
    found = attack(lone, into=tmp_path / "out")
    assert set(found["victims"]) <= set(Partition.load(quick_run.partition).client(0).tolist())
    with pytest.raises(ValueError, match="is in no run folder; say where to write, output_dir="):
        attack(lone)


def test_best_checkpoint_has_a_folder_of_its_own(run_copy: RunFolder):
    with pytest.raises(FileNotFoundError, match=r"attack\.json"):
        attack(run_copy.path, "which=best")
    assert (run_copy.path / "attack_best" / "attack.json").is_file()


def test_run_with_wandb_is_given_values_and_the_picture(
    run_copy: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    given: list[Any] = []
    monkeypatch.setattr(loggers, "log_to_wandb", lambda *arguments: given.append(arguments))
    found = attack(run_copy.path)
    ((run, _, values, pictures),) = given
    assert run.path == run_copy.path
    assert values["attack/decoder_mse"] == found["attacks"]["decoder"]["mse"]["mean"]
    assert "attack/optimisation_ssim" in values
    assert pictures == {"attack/reconstructions": run_copy.attack / "reconstructions.png"}
    attack(run_copy.path, "wandb=false")
    assert len(given) == 1


def test_run_without_wandb_stays_without(run_copy: RunFolder):
    attack(run_copy.path)
    assert not (run_copy.path / "wandb").exists()


# ---- what is refused


def test_checkpoint_without_a_head_is_refused(run_copy: RunFolder):
    rewrite(run_copy, {"method.name": "fl_moco"})
    with pytest.raises(ValueError, match="has no head, method="):
        attack(run_copy.path)


def test_client_that_does_not_exist_is_refused(quick_run: RunFolder):
    with pytest.raises(ValueError, match=r"attack\.client=100: the run has 100 clients, .*0 to 99"):
        attack(quick_run.path, "attack.client=100")


def test_too_few_known_images_are_refused_with_numbers(quick_run: RunFolder):
    with pytest.raises(ValueError, match=r"known_fraction=0\.001: knows 1 of 1438 training images"):
        attack(quick_run.path, "attack.known_fraction=0.001")


def test_folder_without_a_checkpoint_says_so(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoints/last\.ckpt there"):
        attack(tmp_path)


@pytest.mark.slow
def test_command_tells_a_mistake_in_words(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "mocosfl.attack", "checkpoint=nowhere"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "checkpoint=nowhere: no checkpoints/last.ckpt there" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
