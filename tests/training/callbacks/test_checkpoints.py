"""Checkpoints: when they come, which is the best, and that none is half written."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves
from mocosfl.training.callbacks.checkpoints import AtomicCheckpoints, LastCheckpoint, save_if_finite
from mocosfl.training.module import MocoSFL
from tests.support.checkpoints import read


def test_best_checkpoint_in_a_run_is_the_one_with_the_highest_logged_knn(quick_run: RunFolder):
    steps, values = read_curves(quick_run.metrics)["val/knn_top1"]
    best = steps[values.index(max(values))]
    checkpoint = read(quick_run.best)
    assert checkpoint["global_step"] == best + 1
    assert "optimizer_states" not in checkpoint


def test_crash_while_a_checkpoint_is_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, writer = tmp_path / "last.ckpt", AtomicCheckpoints()
    writer.save_checkpoint({"step": 1}, path)

    def crash(checkpoint: Any, file: Any) -> None:
        file.write(b"half of")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", crash)
        with pytest.raises(KeyboardInterrupt):
            writer.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    writer.save_checkpoint({"step": 3}, path)
    assert torch.load(path, weights_only=True) == {"step": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    ("every_steps", "every_minutes", "saved"),
    [(4, 1000, [4, 8, 10]), (1000, 1000, [10]), (1000, 2, [2, 4, 6, 8, 10])],
)
def test_checkpoints_come_by_steps_or_minutes_and_at_the_end(
    module: MocoSFL,
    monkeypatch: pytest.MonkeyPatch,
    every_steps: int,
    every_minutes: float,
    saved: list[int],
):
    clock = [0.0]
    monkeypatch.setattr("mocosfl.training.callbacks.checkpoints.time.monotonic", lambda: clock[0])
    callback = LastCheckpoint(Path("x"), every_steps=every_steps, every_minutes=every_minutes)
    steps: list[int] = []
    for step in range(1, 11):
        clock[0] += 60  # a step a minute
        trainer: Any = SimpleNamespace(
            global_step=step,
            max_steps=10,
            lightning_module=module,
            save_checkpoint=lambda *_, step=step, **__: steps.append(step),
        )
        callback.on_train_batch_end(trainer, module, None, None, step - 1)
    assert steps == saved


@pytest.mark.parametrize("weights_only", [True, False])
def test_checkpoint_with_a_nan_in_it_is_never_written(module: MocoSFL, weights_only: bool):
    saved: list[Path] = []
    trainer: Any = SimpleNamespace(
        lightning_module=module, save_checkpoint=lambda path, **_: saved.append(path)
    )
    save_if_finite(trainer, Path("good"), weights_only=weights_only)
    with torch.no_grad():
        next(module.federation.server.projector.parameters()).view(-1)[-1] = math.nan
    save_if_finite(trainer, Path("bad"), weights_only=weights_only)
    assert saved == [Path("good")]
