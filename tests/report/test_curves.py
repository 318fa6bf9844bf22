"""Curves on a page: their axis, their mean and their ends."""

from pathlib import Path

import numpy as np
import pytest

from mocosfl.report.curves import (
    IMAGES,
    ROUNDS,
    STEPS,
    drawable_curves,
    shared_axis,
    smoothed,
    thinned,
)


def test_curves_are_over_images_in_a_sweep_and_over_steps_where_a_row_is_cut_short(tmp_path: Path):
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    text = "step,train/loss,progress/rounds,progress/images_seen\n9,3,0.5,100\n19,nan,1,200\n"
    whole.write_text(text + "29,1,1.5,300\n")
    cut.write_text(text + "29,1")
    curves, cut_short = drawable_curves(whole), drawable_curves(cut)
    assert curves["train/loss"].values.tolist() == [3, 1]
    assert curves["train/loss"].places[STEPS.column].tolist() == [10, 30]
    assert curves["train/loss"].places[IMAGES.column].tolist() == [100, 300]
    assert shared_axis([curves]) == ROUNDS
    assert shared_axis([curves, curves]) == IMAGES
    assert shared_axis([curves, cut_short]) == STEPS


def test_running_mean_keeps_a_slope_and_thinning_keeps_the_ends():
    line = np.linspace(0.0, 5.0, 101)
    assert smoothed(line, 9) == pytest.approx(line)
    flicker = np.tile([0.0, 1.0], 50)
    assert smoothed(flicker, 20)[20:80] == pytest.approx(0.5, abs=0.03)
    x, y = thinned(line, line * 2, 7)
    assert len(x) == 7 and x[0] == 0 and x[-1] == 5 and y == pytest.approx(2 * x)
