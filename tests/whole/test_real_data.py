"""Real CIFAR-10, where its cache is at hand: in the folder that MOCOSFL_DATA_DIR names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mocosfl.config.schema import Config
from mocosfl.data.federated_data import FederatedData
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves
from mocosfl.training.run import train
from tests.support.real_data import DATA_DIR, NEEDS_CIFAR10

pytestmark = NEEDS_CIFAR10
OVERRIDES = [
    f"data_dir={DATA_DIR}",
    "dataset=cifar10",
    "clients=1000",
    "partition=shards",
    "backbone.width=8",
    "trainer.accelerator=cpu",
    "trainer.progress_bar=false",
    "logger=csv",
]


def test_a_thousand_clients_share_cifar10_by_two_classes_each(
    compose: Callable[[list[str]], Config],
) -> None:
    data = FederatedData(compose(OVERRIDES))
    counts = data.partition.class_counts(data.dataset.train.labels, 10)
    assert (counts.sum(1) == 50).all() and (counts.sum(0) == 5000).all()
    assert ((counts > 0).sum(1) <= 2).all()
    assert data.steps_per_round == 50


def test_a_thousand_clients_learn_from_cifar10(compose: Callable[[list[str]], Config]) -> None:
    limits = ["trainer.max_steps=60", "callbacks.knn_num_images=1000", "clients.num_rounds=2"]
    config = compose([*OVERRIDES, *limits, "callbacks.knn_every_rounds=1"])
    folder = RunFolder(Path(config.run_dir))
    train(config, folder, resume=False)
    curves = read_curves(folder.metrics)
    losses, (steps, top1) = curves["train/loss"][1], curves["val/knn_top1"]
    assert np.isfinite(losses).all()
    # The queue fills in the first thirty steps and the loss rises; from there on it falls.
    assert losses[-1] < max(losses)
    assert steps == [49, 59]
    assert min(top1) > 0.15  # chance is 0.1
