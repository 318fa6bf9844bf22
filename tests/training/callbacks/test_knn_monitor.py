"""The kNN monitor: what it measures, and the best round."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mocosfl.data import federated_data
from mocosfl.data.federated_data import FederatedData
from mocosfl.evaluation.knn import knn_top1, leave_one_out_top1
from mocosfl.runs.folder import RunFolder
from mocosfl.training.build import build_module
from mocosfl.training.callbacks.knn_monitor import KnnMonitor
from mocosfl.training.module import MocoSFL
from mocosfl.training.run import train
from tests.support.checkpoints import curves
from tests.support.configurations import STEPS_PER_ROUND, Compose


def features_by_hand(encoder: nn.Module, data: FederatedData, rows: Any) -> torch.Tensor:
    """Run the encoder over training images of the digits, one at a time."""
    config = data.config.dataset
    images = torch.tensor(data.dataset.train.images[rows]).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(list(v))[:, None, None] for v in (config.mean, config.std))
    with torch.no_grad():
        return torch.cat([encoder.eval()(image[None]) for image in (images - mean) / std])


@pytest.mark.parametrize("features", ["backbone", "projection"])
@pytest.mark.parametrize("held_out", [0, 0.1])
def test_monitor_measures_knn_of_the_chosen_features_and_images(
    held_out: float, features: str, compose_quick: Compose, tmp_path: Path
):
    fraction = f"callbacks.knn_held_out_fraction={held_out}"
    config = compose_quick([fraction, f"callbacks.knn_features={features}"])
    data, module = FederatedData(config), build_module(config, STEPS_PER_ROUND)
    encoder = nn.Sequential(*module.federation.encoder())
    if features == "projection":
        encoder.append(module.federation.server.projector)
    bank, queries = data.monitor
    labels = torch.tensor(data.dataset.train.labels)
    settings = {"num_neighbors": 5, "temperature": 0.1, "num_classes": 10}
    bank_features = features_by_hand(encoder, data, bank)
    if held_out == 0:
        assert queries is None
        expected = leave_one_out_top1(bank_features, labels[bank], **settings)
    else:
        assert queries is not None
        query_features = features_by_hand(encoder, data, queries)
        expected = knn_top1(query_features, labels[queries], bank_features, labels[bank],
                            **settings)  # fmt: skip
    measured = KnnMonitor(config, tmp_path / "best.ckpt").measure(data, module)
    assert measured == pytest.approx(expected, abs=0.02)  # an image of 60 may fall either way
    assert 0 < measured < 1


def test_best_checkpoint_is_that_of_the_best_round(
    compose_quick: Compose, module: MocoSFL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scores, saved = iter([0.3, 0.6, 0.6, 0.5]), []

    def trainer(step: int) -> Any:
        return SimpleNamespace(
            global_step=step,
            max_steps=25,
            datamodule=SimpleNamespace(data=None),
            lightning_module=module,
            loggers=[],
            save_checkpoint=lambda path, weights_only: saved.append((step, path, weights_only)),
        )

    monkeypatch.setattr(KnnMonitor, "measure", lambda *_: next(scores))
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    best = tmp_path / "best.ckpt"
    best.touch()
    monitor = KnnMonitor(compose_quick([]), best)
    for step in range(1, 26):  # rounds end at 7, 14 and 21, the run at 25
        monitor.on_train_batch_end(trainer(step), module, None, None, step - 1)
    assert saved == [(7, best, True), (14, best, True)]
    assert next(scores, None) is None
    resumed = KnnMonitor(compose_quick([]), best)
    resumed.load_state_dict(monitor.state_dict())
    assert resumed.best_top1 == 0.6


def test_test_images_are_never_looked_at(
    compose_quick: Compose, quick_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    load: Callable[..., Any] = federated_data.load_dataset
    monkeypatch.setattr(federated_data, "load_dataset", lambda *a: load(*a)._replace(test=None))
    folder = RunFolder(tmp_path / "run")
    train(compose_quick([f"trainer.max_steps={STEPS_PER_ROUND}"]), folder, resume=False)
    assert curves(folder) == curves(quick_run)[:STEPS_PER_ROUND]
    assert "val/knn_top1" in curves(folder)[-1]
