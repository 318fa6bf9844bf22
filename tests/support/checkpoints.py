"""Breaking a run off, and comparing what two runs have left, bit by bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_metrics


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint; the folder that it was written in is left out."""
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    checkpoint["config"].pop("run_dir")
    return checkpoint


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Return the places at which two nested values differ in type, shape or any bit."""
    if type(one) is not type(other):
        return [where]
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [where]
    if isinstance(one, dict):
        if list(one) != list(other):
            return [f"{where}: {one.keys() ^ other.keys()}"]
        return [d for key in one for d in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [where]
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{where}/{i}")]
    return [] if one == other else [where]


def curves(folder: RunFolder) -> list[dict[str, str]]:
    """Return the rows of a run's metrics without those that measure time."""
    return [
        {k: v for k, v in row.items() if not (k.startswith("time/") or k.endswith("_seconds"))}
        for row in read_metrics(folder.metrics)
    ]


def assert_same_results(one: RunFolder, other: RunFolder) -> None:
    """Compare checkpoints tensor by tensor, and the curves."""
    assert one.best.is_file() == other.best.is_file()
    pairs = [(one.last, other.last), *([(one.best, other.best)] if one.best.is_file() else [])]
    for mine, theirs in pairs:
        assert differences(read(mine), read(theirs)) == []
    assert curves(one) == curves(other)


def break_off(monkeypatch: pytest.MonkeyPatch, step: int, *, behind: type[Callback]) -> None:
    """Let the next run end after so many steps, once the callback `behind` has done its work."""
    good: Callable[..., None] = behind.on_train_batch_end

    def then_stop(self: Callback, trainer: Any, *rest: Any) -> None:
        good(self, trainer, *rest)
        if trainer.global_step == step:
            raise SystemExit("broken off")

    monkeypatch.setattr(behind, "on_train_batch_end", then_stop)
