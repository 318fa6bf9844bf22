"""Pictures of a sweep: each accuracy at its place, on axes that tell the points apart."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mocosfl.report.accuracy_pictures import draw_accuracies
from mocosfl.report.runs import Mean, Run, find_runs
from mocosfl.report.write import choose_accuracy

MB = 2**20


def _drawn(monkeypatch: pytest.MonkeyPatch, means: list[Mean], folder: Path) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    save = Figure.savefig

    def keep(figure: Figure, path: Path, **more: Any) -> None:
        # Beside its place at first, under a name of its own.
        figures[Path(path).name.lstrip(".").removesuffix(".partial")] = figure
        save(figure, path, **more)

    monkeypatch.setattr(Figure, "savefig", keep)
    draw_accuracies(means, "linear", label="linear, %", keys=[], folder=folder)
    return figures


def _run(method: str, partition: str, **settings: Any) -> Run:
    top1, sent = settings.pop("top1"), settings.pop("sent")
    values = {
        "method.name": method, "dataset.name": "cifar10", "partition.kind": partition,
        "clients.num_clients": settings.get("clients", 20), "split.cut_layer": settings["cut"],
        "seed": settings.get("seed", 1),
    }  # fmt: skip
    results = {"linear": top1, "true_bytes": None if sent is None else sent * MB}
    return Run("r", Path(), values, "finished", results=results)


def test_pictures_hold_each_accuracy_at_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    means = [
        Mean([_run("mocosfl", "iid", cut=1, clients=20, top1=0.5, sent=100)]),
        Mean([_run("mocosfl", "iid", cut=1, clients=200, top1=0.4, sent=10)]),
        Mean([_run("fl_moco", "iid", cut=None, clients=20, top1=0.3, sent=900)]),
        Mean([_run("central_moco", "iid", cut=None, clients=1, top1=0.8, sent=0)]),
    ]
    figures = _drawn(monkeypatch, means, tmp_path)
    places = {}
    for name, figure in figures.items():
        (axes,) = figure.axes
        lines = [line.get_xydata().tolist() for line in axes.lines]
        places[name] = sorted(tuple(point) for line in lines for point in line)
    across = [(0.0, 80.0), (1.0, 80.0)]  # in parts of the panel's width
    assert places["accuracy_clients.png"] == [*across, (20.0, 30.0), (20.0, 50.0), (200.0, 40.0)]
    assert places["accuracy_bytes.png"] == [*across, (10.0, 40.0), (100.0, 50.0), (900.0, 30.0)]
    # Neither has a cut.
    assert places["accuracy_cut.png"] == [
        (0.0, 30.0), *across[:1], (1.0, 30.0), (1.0, 40.0), (1.0, 50.0), *across[1:],
    ]  # fmt: skip
    assert figures["accuracy_bytes.png"].axes[0].get_xscale() == "log"


def test_error_bars_are_the_deviation_over_seeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    runs = [_run("mocosfl", "iid", cut=1, top1=t, sent=1, seed=i) for i, t in enumerate((0.4, 0.6))]
    figure = _drawn(monkeypatch, [Mean(runs)], tmp_path)["accuracy_cut.png"]
    (bars,) = figure.axes[0].collections
    low, high = bars.get_paths()[0].vertices[:, 1]
    assert (high - low) / 2 == pytest.approx(100 * 0.1 * 2**0.5)


def test_nothing_in_the_pictures_overlaps_with_36_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    means = [
        Mean([_run("a_method_with_a_long_name", partition, cut=cut, clients=clients,
                   top1=0.5 + 0.001 * clients / cut, sent=clients)])
        for clients in (100, 200, 1000)
        for partition in ("iid", "shards", "dirichlet")
        for cut in (1, 2, 6, 9)
    ]  # fmt: skip
    for figure in _drawn(monkeypatch, means, tmp_path).values():
        width, height = figure.canvas.get_width_height()
        (legend,) = figure.legends
        box, axes_box = legend.get_window_extent(), figure.axes[0].get_tightbbox()
        assert axes_box is not None
        assert box.y1 <= axes_box.y0
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height
        boxes = sorted(
            (text.get_window_extent() for text in figure.axes[0].get_xticklabels()),
            key=lambda box: box.x0,
        )
        shown = [box for box in boxes if box.width > 1]
        assert all(a.x1 < b.x0 for a, b in pairwise(shown))
        assert not any("$" in text.get_text() for text in figure.axes[0].get_xticklabels())


def _bytes(sent: float | None, top1: float | None = 0.5, **settings: Any) -> Run:
    return _run("mocosfl", "iid", cut=1, top1=top1, sent=sent, **settings)


def _marks(axes: Axes) -> list[tuple[float, float]]:
    """Return the points of a panel, and the ends of lines across it, without error bars."""
    lines = [line for line in axes.lines if line.get_marker() != "_"]  # the caps of the bars
    return sorted((x, y) for line in lines for x, y in line.get_xydata().tolist())


def test_point_of_several_seeds_is_at_the_mean_of_their_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    seeds = [_bytes(10, 0.4, seed=1), _bytes(40, 0.6, seed=2), _bytes(None, 0.5, seed=3)]
    not_probed = _bytes(1000, None, seed=4)
    means = [Mean([*seeds, not_probed]), Mean([_bytes(100, clients=200)])]
    axes = _drawn(monkeypatch, means, tmp_path)["accuracy_bytes.png"].axes[0]
    assert _marks(axes) == [(25.0, 50.0), (100.0, 50.0)]


def test_run_whose_bytes_are_not_known_has_no_point_and_no_line_across(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    means = [Mean([_bytes(10)]), Mean([_bytes(None, 0.7, clients=200)])]
    figures = _drawn(monkeypatch, means, tmp_path)
    assert _marks(figures["accuracy_bytes.png"].axes[0]) == [(10.0, 50.0)]
    assert (200.0, 70.0) in _marks(figures["accuracy_clients.png"].axes[0])
    assert "accuracy_bytes.png" not in _drawn(monkeypatch, means[1:], tmp_path)


@pytest.mark.parametrize(
    ("megabytes", "scale"),
    [
        ([100.0], "linear"),
        ([100.0, 100.00001], "linear"),
        ([100.0, 100.2], "linear"),
        ([9_876_543.0, 9_890_000.0], "linear"),
        ([100.0, 120.0, 149.0], "linear"),
        ([100.0, 151.0], "log"),
        ([100.0, 350.0], "log"),
        ([10.0, 350.0], "log"),
        ([10.0, 3_500_000.0], "log"),
    ],
    ids=str,
)
def test_bytes_axis_tells_its_points_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, megabytes: list[float], scale: str
):
    means = [Mean([_bytes(sent, clients=i)]) for i, sent in enumerate(megabytes, start=20)]
    figure = _drawn(monkeypatch, means, tmp_path)["accuracy_bytes.png"]
    (axes,) = figure.axes
    assert axes.get_xscale() == scale
    low, high = axes.get_xlim()
    assert low < min(megabytes) and max(megabytes) < high
    places = axes.transData.transform([(sent, 50.0) for sent in megabytes])[:, 0]
    panel = axes.get_window_extent().width
    if max(megabytes) / min(megabytes) > 1.001:
        assert places[-1] - places[0] > panel / 6
    texts = [text for text in axes.get_xticklabels() if text.get_window_extent().width > 1]
    shown = [text for text in texts if low <= text.get_position()[0] <= high]
    assert len(shown) >= min(2, 1 + (places[-1] - places[0] > 1))
    assert len({text.get_text() for text in shown}) == len(shown)
    assert not any(set(text.get_text()) & {"$", "e"} for text in shown)  # no powers of ten
    boxes = [text.get_window_extent() for text in shown]
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


def test_pictures_prefer_the_linear_probe_and_take_what_there_is(write_run: Any, tmp_path: Path):
    assert choose_accuracy([]) is None
    for number in range(5):
        write_run(tmp_path / f"{number}", top1=0.5 if number < 3 else None)
    runs = find_runs(tmp_path)
    assert choose_accuracy(runs) == "linear"
    assert choose_accuracy(runs[2:]) == "knn_monitor"  # 1 of 3 has been probed
