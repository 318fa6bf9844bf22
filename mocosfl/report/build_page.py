"""The page of a run, and that of a sweep."""

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from mocosfl.report.charts import overlay, style_of
from mocosfl.report.curves import LoggedCurves, drawable_curves, quantities, shared_axis
from mocosfl.report.embedded_pictures import Album
from mocosfl.report.key_figures import best_figures, figures_of
from mocosfl.report.labels import in_words, labels_of
from mocosfl.report.page_model import Figure, LegendEntry, Missing, Page, Part, RunPart, Table
from mocosfl.report.run_sections import curves_part, going_on, parts_of
from mocosfl.report.runs import Run
from mocosfl.report.table import (
    TABLE_WORDS,
    counts,
    group_seeds,
    mean_rows,
    reason_line,
    result_text,
    rows_of,
    varying,
)
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import Row

_IN_HEAD = ("method", "dataset", "partition", "clients", "cut")  # where the runs are alike
_STATUSES = ("failed", "interrupted", "finished")  # the worst first


def page_of(runs: Sequence[Run], title: str, pictures: Sequence[Path], note: str) -> Page:
    """Return the page of one run, or of several.

    Args:
        runs: at least one.
        title: of a sweep: the name of its folder.
        pictures: of its accuracies, already drawn.
        note: on these pictures.
    """
    if len(runs) == 1:
        return _page_of_run(runs[0])
    return _page_of_sweep(runs, title, pictures, note)


def _page_of_run(run: Run) -> Page:
    problems, album = list(run.problems), Album(1)
    curves = _read_curves(run, problems)
    further = parts_of(run, album, anchor="", problems=problems)
    problems += [f"{run.name}: {problem}" for problem in album.problems]
    return Page(
        title=run.name,
        subtitle=in_words(run),
        status=run.status,
        status_words=_steps_in_words(run),
        progress=_progress(run),
        notes=[*_notes(run), *_unreadable(problems), *album.words],
        key_figures=figures_of(run),
        parts=[*_next_part(run), curves_part(curves, anchor="curves"), *further],
        made=_made(),
    )


def _next_part(run: Run) -> list[Part]:
    missing = going_on(run)
    return [] if missing is None else [Part("To go on", "go-on", missing=[missing])]


def _page_of_sweep(runs: Sequence[Run], title: str, pictures: Sequence[Path], note: str) -> Page:
    problems, album = [p for run in runs for p in run.problems], Album(len(runs))
    columns = varying(runs)
    labels = labels_of(runs, columns)
    entries = [_entry(label, index) for index, label in enumerate(labels)]
    accuracies = _accuracy_part(pictures, note, album)
    sections = [
        _run_part(run, entry, album, problems) for run, entry in zip(runs, entries, strict=True)
    ]
    problems += album.problems
    done = [_progress(run) for run in runs]
    return Page(
        title=title,
        subtitle=_shared_words(runs),
        status=next(s for s in _STATUSES if any(run.status == s for run in runs)),
        status_words=counts(runs),
        progress=sum(done) / len(done),
        notes=[*_failures(runs, labels), *_unreadable(problems)],
        key_figures=best_figures(runs, labels),
        parts=[
            _comparison_part(runs, labels),
            accuracies,
            _overlaid_part(runs, entries, problems),
            Part("Runs", "runs", words=["Click on a run to open it.", *album.words], runs=sections),
        ],
        made=_made(),
    )


def _entry(label: str, index: int) -> LegendEntry:
    colour, dashes = style_of(index)
    drawn = "" if dashes == "-" else " ".join(f"{2 * part:g}" for part in dashes[1])
    return LegendEntry(label, colour, drawn, f"run-{index + 1}")


def _run_part(run: Run, entry: LegendEntry, album: Album, problems: list[str]) -> RunPart:
    known = {"linear": "linear probe", "knn": "kNN", "knn_monitor": "kNN monitor"}
    results = [
        f"{words} {result_text(name, value)} %"
        for name, words in known.items()
        if (value := run.results.get(name)) is not None
    ]
    first = Part("", f"{entry.anchor}-state", words=_notes(run))
    missing = going_on(run)
    if missing is not None:
        first.missing.append(missing)
    parts = parts_of(run, album, anchor=f"{entry.anchor}-", problems=problems)
    words = ", ".join([_steps_in_words(run), *results])
    return RunPart(entry, run.name, run.status, words, [first, *parts])


def _comparison_part(runs: Sequence[Run], labels: Sequence[str]) -> Part:
    columns, means = varying(runs), group_seeds(runs)
    part = Part("Comparison", "comparison")
    rows = [row | {"run": label} for label, row in zip(labels, rows_of(runs, columns), strict=True)]
    part.tables.append(_table(rows, TABLE_WORDS.replace("`", '"')))
    if columns.implied:
        part.folded.append(
            ("Settings that differ along with these columns", "\n".join(columns.implied))
        )
    if any(len(mean.runs) > 1 for mean in means):
        words = "Finished runs that differ in the seed alone: mean +- standard deviation."
        part.tables.append(_table(mean_rows(means, columns), words))
    return part


def _table(rows: Sequence[Row], words: str) -> Table:
    """Return a table without columns in which nothing is known, or that the page's head says."""
    alike = {key for key in _IN_HEAD if len({row.get(key) for row in rows}) == 1}
    shown = [key for key in rows[0] if key not in alike and any(row[key] != "-" for row in rows)]
    return Table(shown, [[row[key] for key in shown] for row in rows], words)


def _accuracy_part(pictures: Sequence[Path], note: str, album: Album) -> Part:
    figures = []
    for path in pictures:
        against = path.stem.removeprefix("accuracy_")
        words = "Error bars: standard deviation over seeds. Dashed across: no place on the axis."
        figures += album.figure(path, f"Accuracy against {against}", words)
    return Part("Accuracy", "accuracy", words=[note], figures=figures)


def _overlaid_part(
    runs: Sequence[Run], entries: Sequence[LegendEntry], problems: list[str]
) -> Part:
    curves = [_read_curves(run, problems) for run in runs]
    known = [run for run in curves if run]
    if not known:
        return Part("Curves", "curves", missing=[Missing("No run has logged anything yet.")])
    axis, styles = shared_axis(known), [style_of(index) for index in range(len(runs))]
    figures = [
        Figure(quantity.title, quantity.words, chart=overlay(quantity, axis, curves, styles))
        for quantity in quantities(known)
    ]
    words = [
        f"All runs over {axis.label}, a colour a run. Of what is noisy, because it is of single "
        "batches, the running mean is drawn."
    ]
    shown = [entry for entry, run in zip(entries, curves, strict=True) if run]
    return Part("Curves", "curves", words=words, legend=shown, figures=figures)


def _read_curves(run: Run, problems: list[str]) -> LoggedCurves:
    metrics = RunFolder(run.folder).metrics
    try:
        return drawable_curves(metrics)
    except ValueError:
        if metrics.name not in run.damaged:
            problems.append(f"{run.name}: metrics.csv is not readable")
        return {}


def _steps_in_words(run: Run) -> str:
    if run.steps is None:
        return "no step done"
    if run.planned_steps is None:
        return f"{run.steps:,} steps"
    return f"{run.steps:,} of {run.planned_steps:,} steps"


def _progress(run: Run) -> float:
    if run.status == "finished":
        return 1.0
    return min(1.0, (run.steps or 0) / run.planned_steps) if run.planned_steps else 0.0


def _notes(run: Run) -> list[str]:
    notes = [f"Notes: {run.notes}"] if run.notes else []
    if run.status == "failed":
        notes.append(f"Failed: {reason_line(run.message)} (the whole message is in failed.txt)")
    return notes


def _failures(runs: Sequence[Run], labels: Sequence[str]) -> list[str]:
    return [
        f"Failed: {label}: {reason_line(run.message)}"
        for run, label in zip(runs, labels, strict=True)
        if run.status == "failed"
    ]


def _unreadable(problems: Sequence[str]) -> list[str]:
    return [f"Not read: {problem}" for problem in dict.fromkeys(problems)]


def _shared_words(runs: Sequence[Run]) -> str:
    """Return what all runs have in common, of what every table shows."""
    bases = [run.base() for run in runs if run.settings]
    if not bases:
        return "no run with a readable configuration"
    same = {key: bases[0][key] for key in bases[0] if len({str(base[key]) for base in bases}) == 1}
    words = {"clients": "{:,} clients", "cut": "cut {}"}
    told = [words.get(key, "{}").format(value) for key, value in same.items()]
    return (
        "All runs: " + ", ".join(told) if told else "The runs differ in all that the table shows."
    )


def _made() -> str:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return f"Made on {when} by mocosfl {version('mocosfl')}. Everything is inside this file."
