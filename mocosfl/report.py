"""A sweep's runs as one table and three pictures: `python -m mocosfl.report <folder>`."""

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mocosfl.config import check_writable
from mocosfl.report_pictures import draw_accuracies
from mocosfl.report_runs import RESULTS, Mean, Run, find_runs
from mocosfl.run_folder import RunFolder, write_atomically

_BYTES = ("true_bytes", "paper_bytes")
_MEGABYTE = 2**20  # the papers' unit
# What pictures may show, the best first.
_ACCURACIES = {
    "linear": "linear probe on test images, %",
    "knn": "kNN on test images, %",
    "knn_monitor": "kNN on training images, %",
}
_MAX_WIDTH = 40  # characters of a setting in a table
_MISSING = "-"

Row = dict[str, str]


class Columns(NamedTuple):
    """Settings that tell the runs apart."""

    shown: list[str]  # full keys that vary beside method, data set, partition, clients and cut
    implied: list[str]  # full keys that vary only with those


def varying(runs: Sequence[Run]) -> Columns:
    """Find the settings in which the runs differ; the seed is shown where it does."""
    known = [run for run in runs if run.settings]
    keys = sorted({key for run in known for key in run.settings})
    differing = [k for k in keys if len({repr(run.settings.get(k)) for run in known}) > 1]
    in_base = {
        "method.name", "dataset.name", "partition.kind", "clients.num_clients", "split.cut_layer",
    }  # fmt: skip
    shown: list[str] = []
    implied: list[str] = []
    for key in differing:
        if key not in in_base:
            (implied if _follows(known, key) else shown).append(key)
    return Columns(shown, implied)


def _follows(runs: Sequence[Run], key: str) -> bool:
    """Return whether runs alike in what every table shows are alike in a setting too."""
    if key == "seed":
        return False
    values: dict[str, str] = {}
    return all(
        values.setdefault(str(run.base()), repr(run.settings.get(key)))
        == repr(run.settings.get(key))
        for run in runs
    )


def group_seeds(runs: Sequence[Run]) -> list[Mean]:
    """Group the finished runs that differ in the seed alone."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.status == "finished" and run.settings:
            same = {k: v for k, v in sorted(run.settings.items()) if k != "seed"}
            groups.setdefault(repr(same), []).append(run)
    return [Mean(group) for group in groups.values()]


def with_overhead(run: Run) -> Run:
    """Fill in the bytes of a run that has not written its overhead.json, where they follow.

    They don't where `saving` lets rounds go without traffic: only the run itself counts those.
    """
    known = run.results.get("true_bytes") is not None
    if known or not run.settings or not run.steps or run.settings.get("saving.enabled"):
        return run
    try:
        values = _computed_bytes(RunFolder(run.folder), run.steps)
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        problem = f"{run.name}: its bytes don't follow from its files ({reason})"
        return replace(run, problems=(*run.problems, problem))
    return replace(run, results={**run.results, **values})


def _computed_bytes(folder: RunFolder, steps: int) -> dict[str, float]:
    # Imported only where a run needs it: torch takes seconds.
    from mocosfl.data.partition import Partition
    from mocosfl.overhead.summary import compute_bytes

    config, partition = folder.load_config(), Partition.load(folder.partition)
    sent = compute_bytes(config, partition.counts, num_steps=steps)
    return {"true_bytes": sent["up_bytes"] + sent["down_bytes"], "paper_bytes": sent["paper_bytes"]}


def rows_of(runs: Sequence[Run], columns: Columns) -> list[Row]:
    """Return the table's rows: settings, status, results in percent and MB."""
    rows = []
    for run in runs:
        row = {"run": run.name, **_settings(run, columns.shown)}
        done, planned = _count(run.steps), _count(run.planned_steps)
        row |= {"steps": f"{done} / {planned}", "status": run.status}
        rows.append(row | {title: _result_of(run, name) for name, title in RESULTS.items()})
    return rows


def _result_of(run: Run, name: str) -> str:
    """Return a result and, where the run has not finished, the steps done by then."""
    text, steps = _result(name, run.results.get(name)), run.result_steps.get(name)
    if run.status == "finished" or text == _MISSING or steps is None:
        return text
    return f"{text} (after {steps:,})"


def mean_rows(means: Sequence[Mean], columns: Columns) -> list[Row]:
    """Return the rows of the table over seeds: mean +- standard deviation."""
    rows = []
    for mean in means:
        row = _settings(mean.runs[0], [key for key in columns.shown if key != "seed"])
        row["n"] = str(len(mean.runs))
        for name, title in RESULTS.items():
            spread = mean.spread(name)
            row[title] = _MISSING if spread is None else _spread(name, spread, len(mean.runs))
        rows.append(row)
    return rows


def _settings(run: Run, keys: Sequence[str]) -> Row:
    row = {name: _text(value) for name, value in run.base().items()}
    return row | {key: _text(run.settings.get(key)) for key in keys}


def _spread(name: str, spread: tuple[float, float, int], of: int) -> str:
    mean, deviation, number = spread
    text = _result(name, mean)
    if number > 1:
        text += f" +- {_result(name, deviation)}"
    return text if number == of else f"{text} (n = {number})"


def _result(name: str, value: float | None) -> str:
    if value is None:
        return _MISSING
    if name in _BYTES:
        return f"{value / _MEGABYTE:,.2f}"
    return f"{value:.4f}" if name == "loss" else f"{100 * value:.2f}"


def _count(number: int | None) -> str:
    return _MISSING if number is None else f"{number:,}"


def _text(value: Any) -> str:
    if value is None:
        return _MISSING
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _MAX_WIDTH else f"...{text[-_MAX_WIDTH:]}"


def markdown_table(rows: Sequence[Row]) -> str:
    """Return rows of the same columns as a Markdown table."""
    cells = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(c.replace('|', '/') for c in line)} |" for line in cells)


def csv_table(runs: Sequence[Run], columns: Columns) -> str:
    """Return every run as CSV: all settings that differ, plain numbers, bytes, fractions.

    What is missing is an empty cell.
    """
    keys = [*columns.shown, *columns.implied]
    base = ["method", "dataset", "partition", "clients", "cut"]
    names = ["run", *base, *keys, "steps", "planned_steps", "status", *RESULTS]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    for run in runs:
        row: dict[str, Any] = {"run": run.name, **run.base()}
        row |= {key: run.settings.get(key) for key in keys}
        row |= {"steps": run.steps, "planned_steps": run.planned_steps, "status": run.status}
        row |= run.results
        writer.writerow({k: v for k, v in row.items() if v is not None and k in names})
    return text.getvalue()


def choose_accuracy(runs: Sequence[Run]) -> str | None:
    """Return the accuracy for the pictures; None where no run has any.

    The first of linear probe, kNN on test images and kNN monitor that at least half as many runs
    have as have the commonest.
    """
    known = {n: sum(run.results.get(n) is not None for run in runs) for n in _ACCURACIES}
    most = max(known.values())
    return next((n for n, number in known.items() if most and 2 * number >= most), None)


def write_report(runs: Sequence[Run], title: str, output: Path) -> list[Path]:
    """Write report.md, report.csv and the pictures; returns the files.

    Args:
        runs: at least one.
        title: of the report.
        output: folder for the files.
    """
    output.mkdir(parents=True, exist_ok=True)
    columns, means = varying(runs), group_seeds(runs)
    finished = [run for mean in means for run in mean.runs]
    accuracy = choose_accuracy(finished)
    note = "No pictures: no finished run has an accuracy."
    pictures: list[Path] = []
    if accuracy is not None:
        pictures = draw_accuracies(
            means,
            accuracy,
            label=_ACCURACIES[accuracy],
            keys=[key for key in columns.shown if key != "seed"],
            folder=output,
        )
        number = sum(run.results.get(accuracy) is not None for run in finished)
        note = f"Pictures: {_ACCURACIES[accuracy]}, of {number} of {len(finished)} finished runs."
    parts = _markdown(runs, means, columns, f"# {title}")
    parts += [note, *(f"![{file.stem}]({file.name})" for file in pictures), *_not_well(runs)]
    text = "\n\n".join(parts) + "\n"
    write_atomically(output / "report.md", text)
    write_atomically(output / "report.csv", csv_table(runs, columns))
    return [output / "report.md", output / "report.csv", *pictures]


def _markdown(
    runs: Sequence[Run], means: Sequence[Mean], columns: Columns, title: str
) -> list[str]:
    parts = [title, _counts(runs), markdown_table(rows_of(runs, columns))]
    parts.append(
        "Accuracies are top-1 in %. The kNN monitor's, on training images, and the loss are the "
        "newest that were logged; the others are of the probes, on test images. Of an unfinished "
        "run the steps done by then stand behind: `(after 300)`. MB are 2^20 bytes, up and down, "
        "over the steps done. `-`: not known, as the MB of a run with saving before its end. "
        "Interrupted: stopped before its last step, or still running."
    )
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
    failed = [f"- {run.name}: {_first_line(run.message)}" for run in runs if run.status == "failed"]
    problems = [f"- {problem}" for run in runs for problem in run.problems]
    parts = ["## Failed", "\n".join(failed)] if failed else []
    return parts + (["## Not read", "\n".join(problems)] if problems else [])


def _counts(runs: Sequence[Run]) -> str:
    number: Mapping[str, int] = {
        status: sum(run.status == status for run in runs)
        for status in ("finished", "interrupted", "failed")
    }
    runs_in_words = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    return f"{runs_in_words}: " + ", ".join(f"{n} {status}" for status, n in number.items()) + "."


def _first_line(message: str) -> str:
    return next(iter(message.splitlines()), "no reason given")


def main(arguments: Sequence[str]) -> None:
    """Report on the folder that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m mocosfl.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="of a sweep, of one run, or of several sweeps")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the report; default: the folder"
    )
    chosen = parser.parse_args(arguments)
    root, output = chosen.folder, chosen.output or chosen.folder
    try:
        runs = find_runs(root)
        check_writable(output)
        runs = [with_overhead(run) for run in runs]
        files = write_report(runs, f"Report of {root.resolve().name}", output)
    except (ValueError, OSError) as error:
        sys.exit(f"\nmocosfl: {error}")
    print(_counts(runs))
    for problem in (problem for run in runs for problem in run.problems):
        print(f"not read: {problem}")
    print("report: " + ", ".join(map(str, files)))


if __name__ == "__main__":
    main(sys.argv[1:])
