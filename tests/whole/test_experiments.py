"""Every experiment file: it composes, is valid, trains, and its comment's commands compose."""

import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mocosfl.config.hydra_setup import CONF
from mocosfl.config.identity import job_folder
from mocosfl.rules.validate import validate
from mocosfl.runs.folder import RunFolder
from mocosfl.training.run import train
from tests.support.configurations import Compose, changed, composed_with_hydra
from tests.support.experiments import TWO_STEPS, jobs

EXPERIMENTS = sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))
EXPERIMENTS.remove("none")
NEED_EXPERT = ("table4_federation",)

SMALL = [
    "dataset=digits",
    "partition.classes_per_client=1",  # 1,000 clients of 2 classes need more images
    *TWO_STEPS,
]


def comment(name: str) -> list[str]:
    """Return the lines of an experiment's comment."""
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    return [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]


def commands(name: str) -> list[list[str]]:
    """Return the commands in an experiment's comment; what follows in brackets is no part."""
    lines = [line for line in comment(name) if line.startswith("python ")]
    return [shlex.split(re.sub(r"\s+\(.*", "", line)) for line in lines]


SMALL_EXPERT = [
    "dataset@taressfl.auxiliary=digits",
    "taressfl.auxiliary.name=more_digits",
    "clients.batch_size=12",
    "taressfl.target_rows=4",
    "taressfl.decoder=plain",
]


def also_needed(compose: Compose, tmp_path: Path, name: str) -> list[str]:
    """Return what an experiment's small run needs besides: small parts, or an expert."""
    if name != "table4_federation":
        return SMALL_EXPERT if name.startswith("table4") else []
    folder = RunFolder(tmp_path / "expert")
    train(compose(["experiment=table4_experts", *SMALL, *SMALL_EXPERT]), folder, resume=False)
    return [f"taressfl.expert={folder.path}"]


# Two steps of each; that their commands compose is in the fast suite.
@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_is_valid_and_trains(compose: Compose, tmp_path: Path, name: str):
    needed = also_needed(compose, tmp_path, name)
    full = compose([f"experiment={name}", *(["taressfl.expert=x"] if name in NEED_EXPERT else [])])
    validate(full)
    assert full.seed == 1234
    config = compose([f"experiment={name}", *SMALL, *needed])
    assert train(config, RunFolder(tmp_path / "run"), resume=False).trainer.global_step == 2


# One job for each choice that changes what is trained, beside the file's own.
OTHER_JOBS = {
    "methods": ["method=fl_moco", "method=central_moco"],
    "cut_depth": ["split=cut9 method=monacosfl"],
    "communication_saving": ["saving=off"],
}


@pytest.mark.parametrize(
    ("name", "job"), [(name, job) for name, found in OTHER_JOBS.items() for job in found]
)
def test_job_of_an_experiment_trains(compose: Compose, tmp_path: Path, name: str, job: str):
    config = compose([f"experiment={name}", *job.split(), *SMALL])
    assert train(config, RunFolder(tmp_path / "run"), resume=False).trainer.global_step == 2


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_comment_tells_command_expectation_hours_and_hardware(name: str):
    text = " ".join(comment(name))
    assert comment(name)[0] == "@package _global_"
    assert f"experiment={name}" in text
    for word in ("python ", "Expected", "Hours", "not measured"):
        assert word in text, word


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_commands_in_the_comment_compose(name: str):
    found = commands(name)
    assert found
    for command in found:
        known = command[:2] == ["python", "train.py"] or command[1] == "-m"
        assert known, command
        overrides = [argument for argument in command if "=" in argument]
        if "-m" in command[2:]:  # a sweep, not python -m
            batch = jobs(overrides)
            for job in (batch[0], batch[-1]):
                composed_with_hydra(job)
        else:
            assert not any("," in override for override in overrides), "a sweep without -m"
            names = {"mocosfl.expert": "expert", "mocosfl.attack": "attack"}
            composed_with_hydra(overrides, names.get(command[2], "config"))


def test_methods_are_eight_runs_of_a_thousand_steps():
    batch = jobs(["experiment=methods"])
    configs = [composed_with_hydra(job) for job in batch]
    assert len({job_folder(config) for config in configs}) == 8
    for config in configs:
        images = 50_000 // config.clients.num_clients
        assert config.clients.num_rounds * (images // config.clients.batch_size) == 1000
        assert config.clients.num_clients * config.clients.batch_size == 100
        assert (config.backbone.width, config.trainer.precision) == (16, "bf16")


def test_table4_has_six_experts_with_auxiliary_images():
    batch = jobs(["experiment=table4_experts"])
    assert len(batch) == len({tuple(job) for job in batch}) == 6
    config = composed_with_hydra(batch[-1])
    assert config.taressfl.auxiliary.name == "cifar100"
    assert (config.clients.num_clients, config.clients.batch_size) == (1, 256)
    assert (config.taressfl.alpha, config.taressfl.target_ssim) == (2.0, 0.6)
    assert len(jobs(["experiment=table4_alpha"])) == 8
    assert len(jobs(["experiment=table4_bottlenecks"])) == 6


def test_table3_has_36_cells():
    batch = jobs(["experiment=table3"])
    assert len(batch) == len({tuple(job) for job in batch}) == 36
    numbers = re.findall(r"\d\d\.\d\d", " ".join(comment("table3")))
    assert len(numbers) == 36


def test_cells_of_table3_follow_the_published_rule():
    for number, rounds, syncs in (("100", 200, 10), ("200", 400, 5), ("1000", 2000, 1)):
        config = composed_with_hydra(["experiment=table3", f"clients={number}"])
        assert (config.clients.num_rounds, config.clients.syncs_per_round) == (rounds, syncs)
        assert (config.moco.queue_length, config.moco.symmetric.name) == (6000, "server")
        assert (config.backbone.name, config.backbone.width) == ("resnet18", 64)


def test_methods_of_cut_depth_differ_in_alignment_alone():
    both = [
        changed(
            composed_with_hydra(["experiment=cut_depth", "split=cut9", f"method={name}"]),
            {"notes": ""},
        )
        for name in ("mocosfl", "monacosfl")
    ]
    one, other = (OmegaConf.to_container(config, resolve=False) for config in both)
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    assert {key for key in one if one[key] != other[key]} - {"hydra"} == {"method"}
    assert {k for k in one["method"] if one["method"][k] != other["method"][k]} == {"name"}
    assert len(jobs(["experiment=cut_depth"])) == 18
