"""The files of a report: report.md, report.csv, the accuracies as pictures, report.html."""

from collections.abc import Sequence
from pathlib import Path

from mocosfl.report.accuracy_pictures import draw_accuracies, remove_others
from mocosfl.report.build_page import page_of
from mocosfl.report.page_model import render
from mocosfl.report.runs import Mean, Run
from mocosfl.report.table import (
    TABLE_WORDS,
    Columns,
    counts,
    csv_table,
    group_seeds,
    markdown_table,
    mean_rows,
    reason_line,
    rows_of,
    varying,
)
from mocosfl.system.files import write_atomically

# What pictures may show, the best first.
_ACCURACIES = {
    "linear": "linear probe on test images, %",
    "knn": "kNN on test images, %",
    "knn_monitor": "kNN on training images, %",
}


def choose_accuracy(runs: Sequence[Run]) -> str | None:
    """Return the accuracy for the pictures; None where no run has any.

    The first of linear probe, kNN on test images and kNN monitor that at least half as many runs
    have as have the commonest.
    """
    known = {n: sum(run.results.get(n) is not None for run in runs) for n in _ACCURACIES}
    most = max(known.values())
    return next((n for n, number in known.items() if most and 2 * number >= most), None)


def write_report(runs: Sequence[Run], name: str, output: Path) -> list[Path]:
    """Write report.md, report.csv, report.html and the pictures; returns the files.

    Pictures of an earlier report that are not drawn now are removed.

    Args:
        runs: at least one.
        name: of the sweep.
        output: folder for the files.
    """
    output.mkdir(parents=True, exist_ok=True)
    columns, means = varying(runs), group_seeds(runs)
    finished = [run for mean in means for run in mean.runs]
    accuracy = choose_accuracy(finished)
    note = "No pictures: no finished run has an accuracy."
    pictures: list[Path] = []
    if len(runs) == 1:
        note = "No pictures of accuracies: there is one run, and nothing to compare it with."
    elif accuracy is not None:
        pictures = draw_accuracies(
            means,
            accuracy,
            label=_ACCURACIES[accuracy],
            keys=[key for key in columns.shown if key != "seed"],
            folder=output,
        )
        number = sum(run.results.get(accuracy) is not None for run in finished)
        note = f"Pictures: {_ACCURACIES[accuracy]}, of {number} of {len(finished)} finished runs."
    remove_others(pictures, output)
    parts = _markdown(runs, means, columns, f"# Report of {name}")
    parts += [note, *(f"![{file.stem}]({file.name})" for file in pictures), *_not_well(runs)]
    text = "\n\n".join(parts) + "\n"
    write_atomically(output / "report.md", text)
    write_atomically(output / "report.csv", csv_table(runs, columns))
    write_atomically(output / "report.html", render(page_of(runs, name, pictures, note)))
    return [output / file for file in ("report.html", "report.md", "report.csv")] + pictures


def _markdown(
    runs: Sequence[Run], means: Sequence[Mean], columns: Columns, title: str
) -> list[str]:
    parts = [title, counts(runs), markdown_table(rows_of(runs, columns))]
    parts.append(TABLE_WORDS)
    if columns.implied:
        parts.append("Differ too, along with the columns above: " + ", ".join(columns.implied))
    if any(len(mean.runs) > 1 for mean in means):
        parts += [
            "## Over seeds",
            "Finished runs that differ in the seed alone: mean +- standard deviation of a sample.",
            markdown_table(mean_rows(means, columns)),
        ]
    return parts


def _not_well(runs: Sequence[Run]) -> list[str]:
    failed = [f"- {run.name}: {reason_line(run.message)}" for run in runs if run.status == "failed"]
    problems = [f"- {problem}" for run in runs for problem in run.problems]
    parts = ["## Failed", "\n".join(failed)] if failed else []
    return parts + (["## Not read", "\n".join(problems)] if problems else [])
