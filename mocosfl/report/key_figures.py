"""The best numbers of a run, or of several, for the top of the page."""

from collections.abc import Sequence

from mocosfl.report.page_model import KeyFigure
from mocosfl.report.runs import Run
from mocosfl.report.table import result_text

_FIGURES = {
    "linear": ("Linear probe", "top-1 on test images"),
    "knn": ("kNN", "top-1 on test images"),
    "knn_monitor": ("kNN monitor", "top-1 on training images"),
    "semi_10": ("10 % of the labels", "top-1 on test images"),
    "loss": ("Loss", "nats, the newest that was logged"),
    "true_bytes": ("Traffic a client", "up and down, over the steps done"),
}


def figures_of(run: Run) -> list[KeyFigure]:
    """Return what a run has reached; of an unfinished one with the steps done by then."""
    figures = []
    for name, (title, words) in _FIGURES.items():
        value, steps = run.results.get(name), run.result_steps.get(name)
        if value is not None:
            late = run.status != "finished" and steps is not None
            told = f"{words}, after {steps:,} steps" if late else words
            figures.append(KeyFigure(_value(name, value), title, told))
    return figures


def best_figures(runs: Sequence[Run], labels: Sequence[str]) -> list[KeyFigure]:
    """Return the best of the finished runs, each with the label of the run that has it.

    A run on its way has sent little yet, and its accuracies are of fewer steps. The loss is left
    out: those of different settings don't compare.
    """
    finished = {
        label: run for run, label in zip(runs, labels, strict=True) if run.status == "finished"
    }
    told = "" if len(finished) in (0, len(runs)) else "the best are of these alone"
    figures = [KeyFigure(f"{len(finished)} of {len(runs)}", "Runs finished", told)]
    for name, (title, words) in _FIGURES.items():
        results = {label: run.results.get(name) for label, run in finished.items()}
        known = {label: v for label, v in results.items() if v is not None and _counts(name, v)}
        if not known or name == "loss":
            continue
        least = name == "true_bytes"
        best = (min if least else max)(known, key=lambda label: known[label])
        which = f"{'Least' if least else 'Best'} {title[:1].lower()}{title[1:]}"
        figures.append(KeyFigure(_value(name, known[best]), which, f"{best}; {words}"))
    return figures


def _counts(name: str, value: float) -> bool:
    """Return whether a result competes: where one machine does it all, nothing travels."""
    return name != "true_bytes" or value > 0


def _value(name: str, value: float) -> str:
    text = f"{value:.3f}" if name == "loss" else result_text(name, value)
    unit = {"loss": "", "true_bytes": " MB"}.get(name, " %")
    return text + unit
