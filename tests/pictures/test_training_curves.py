"""Pictures of curves: readable, of a sensible size, not blank, for few and for many curves."""

from pathlib import Path

import pytest

from mocosfl.pictures.training_curves import draw_metrics
from tests.support.picture_checks import check_picture


@pytest.mark.parametrize("num_metrics", [1, 4, 7])
def test_curves_are_drawn(num_metrics: int, tmp_path: Path) -> None:
    steps = list(range(400))
    names = ["train/loss", "val/knn_top1", "train/step_seconds"]
    names += [f"train/other_{index}" for index in range(4)]
    values = [0.5 + 0.001 * step for step in steps[:-1]] + [float("nan")]
    metrics = dict.fromkeys(names[:num_metrics], (steps, values))
    draw_metrics(metrics, tmp_path / "curves.png")
    check_picture(tmp_path / "curves.png")


def test_a_curve_of_one_point_or_of_none_finite_is_drawn(tmp_path: Path) -> None:
    metrics = {"train/loss": ([3.0], [1.0]), "val/knn_top1": ([1.0], [float("nan")])}
    draw_metrics(metrics, tmp_path / "curves.png")
    check_picture(tmp_path / "curves.png")


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metrics: nothing to draw"):
        draw_metrics({}, tmp_path / "curves.png")
