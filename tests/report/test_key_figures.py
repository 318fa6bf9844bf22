"""The best numbers of a sweep: of runs that can be compared."""

from pathlib import Path

from mocosfl.report.key_figures import best_figures
from mocosfl.report.page_model import KeyFigure
from mocosfl.report.runs import Run

MB = 2**20


def _best(*runs: tuple[str, float, float]) -> dict[str, KeyFigure]:
    """Return the figures by name, of runs of a status, a linear probe and MB each."""
    read = [
        Run(f"r{i}", Path(), {}, status, results={"linear": top1, "true_bytes": sent * MB})
        for i, (status, top1, sent) in enumerate(runs)
    ]
    return {figure.name: figure for figure in best_figures(read, [run.name for run in read])}


def test_best_are_those_of_finished_runs():
    best = _best(("interrupted", 0.9, 1), ("finished", 0.5, 40), ("failed", 0.8, 2))
    assert best["Best linear probe"][:1] == ("50.00 %",)
    assert best["Least traffic a client"].value == "40.00 MB"
    assert best["Least traffic a client"].words.startswith("r1; ")
    assert best["Runs finished"] == ("1 of 3", "Runs finished", "the best are of these alone")


def test_run_without_traffic_is_not_the_one_with_the_least():
    best = _best(("finished", 0.9, 0), ("finished", 0.5, 40))
    assert best["Least traffic a client"].value == "40.00 MB"
    assert best["Best linear probe"].value == "90.00 %"
    assert "Least traffic a client" not in _best(("finished", 0.9, 0), ("finished", 0.8, 0))


def test_sweep_of_which_nothing_has_finished_has_no_best():
    assert list(_best(("interrupted", 0.9, 1))) == ["Runs finished"]
