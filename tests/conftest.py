"""Fixtures for all tests: composed configurations, and a cache of the digits."""

import copy
import os
import shutil

# Before torch is imported, here or by a test module: tiny tensors gain nothing from more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before a W&B service is started, which is told so once: no test's error is reported to anybody.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from mocosfl.config.schema import Config
from mocosfl.runs.folder import RunFolder
from tests.support.configurations import EXPERT, QUICK, Compose, cached_config


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the data sets' caches, shared by all tests; the first to load digits fills it."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def without_data_dir_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide where the user keeps real data sets: a test gets those that it names, on any machine."""
    monkeypatch.delenv("MOCOSFL_DATA_DIR", raising=False)


@pytest.fixture
def compose(data_dir: Path, tmp_path: Path) -> Compose:
    """Compose `python train.py <overrides>` into what the script is given.

    Its `data_dir` is the shared one and its `run_dir` is `tmp_path / "run"` unless overridden.
    """

    def composed(overrides: Sequence[str]) -> Config:
        # Composed once for all tests; each gets a copy to change.
        config = copy.deepcopy(cached_config((f"data_dir={data_dir}", *overrides)))
        if not any(override.startswith("run_dir=") for override in overrides):
            config.run_dir = str(tmp_path / "run")
        return cast(Config, config)

    return composed


@pytest.fixture
def tiny_overrides(data_dir: Path) -> list[str]:
    """Command line of a run of 33 quick steps.

    40 clients with 35 or 36 digits each; rounds of 11 steps of 10 clients with 3 images; 128 keys.
    """
    return [
        f"data_dir={data_dir}",
        "dataset=digits",
        "partition=shards",
        "clients.num_clients=40",
        "clients.batch_size=3",
        "clients.syncs_per_round=2",
        "clients.participation=0.25",
        "clients.num_rounds=3",
        "backbone.width=8",
        "moco.queue_length=128",
        "moco.projector_hidden=32",
        "moco.projector_dim=16",
        "trainer.accelerator=cpu",
        "trainer.log_every_steps=1",
        "trainer.view_block_images=120",
        "trainer.num_threads=1",
        "trainer.progress_bar=false",
        "logger=csv",
        "callbacks.knn_every_rounds=1",
        "callbacks.knn_num_images=100",
        "callbacks.knn_num_neighbors=10",
        "callbacks.pictures=false",
        "callbacks.measure_client_memory=false",
    ]


@pytest.fixture
def compose_quick(compose: Compose) -> Compose:
    """Compose the quickest run that trains, with further overrides."""
    return lambda overrides: compose([*QUICK, *overrides])


@pytest.fixture(scope="session")
def quick_run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Train the quick run, once for all tests: read it, and copy its folder to change it."""
    from mocosfl.training.run import train

    folder = RunFolder(tmp_path_factory.mktemp("quick") / "run")
    config = copy.deepcopy(cached_config((f"data_dir={data_dir}", *QUICK)))
    config.run_dir = str(folder.path)
    train(cast(Config, config), folder, resume=False)
    return folder


@pytest.fixture
def run_copy(quick_run: RunFolder, tmp_path: Path) -> RunFolder:
    """Return a copy of the quick run's folder, to change; it is where `compose` has its runs."""
    return RunFolder(shutil.copytree(quick_run.path, tmp_path / "run"))


@pytest.fixture
def compose_tiny(compose: Compose, tiny_overrides: list[str]) -> Compose:
    """Compose the tiny run with further overrides."""
    return lambda overrides: compose([*tiny_overrides, *overrides])


@pytest.fixture
def tiny_config(compose_tiny: Compose) -> Config:
    """Return the tiny run's configuration."""
    return compose_tiny([])


@pytest.fixture
def compose_expert(compose_quick: Compose) -> Compose:
    """Compose the training of an expert, with further overrides."""
    return lambda overrides: compose_quick([*EXPERT, *overrides])
