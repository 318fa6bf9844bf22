"""A sweep's runs as tables: what differs between them, and what they have reached."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mocosfl.config.identity import without_places
from mocosfl.report.results import RESULTS
from mocosfl.report.runs import Mean, Run
from mocosfl.runs.read_metrics import Row
from mocosfl.system.units import MEGABYTE

_BYTES = ("true_bytes", "paper_bytes")
_MAX_WIDTH = 40  # characters of a setting in a table
_MISSING = "-"

TABLE_WORDS = (
    "Accuracies are top-1 in %. The kNN monitor's, on training images, and the loss are the "
    "newest that were logged; the others are of the probes, on test images. Of an unfinished "
    "run the steps done by then stand behind: `(after 300)`. MB are 2^20 bytes, up and down, "
    "over the steps done. `-`: not known, as the MB of a run with saving before its end. "
    "Interrupted: stopped before its last step, or still running."
)


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


def rows_of(runs: Sequence[Run], columns: Columns) -> list[Row]:
    """Return the table's rows: settings, status, results in percent and MB."""
    rows = []
    for run in runs:
        row = {"run": run.name, **settings_of(run, columns.shown)}
        done, planned = _count(run.steps), _count(run.planned_steps)
        row |= {"steps": f"{done} / {planned}", "status": run.status}
        rows.append(row | {title: _result_of(run, name) for name, title in RESULTS.items()})
    return rows


def _result_of(run: Run, name: str) -> str:
    """Return a result and, where the run has not finished, the steps done by then."""
    text, steps = result_text(name, run.results.get(name)), run.result_steps.get(name)
    if run.status == "finished" or text == _MISSING or steps is None:
        return text
    return f"{text} (after {steps:,})"


def mean_rows(means: Sequence[Mean], columns: Columns) -> list[Row]:
    """Return the rows of the table over seeds: mean +- standard deviation."""
    rows = []
    for mean in means:
        row = settings_of(mean.runs[0], [key for key in columns.shown if key != "seed"])
        row["n"] = str(len(mean.runs))
        for name, title in RESULTS.items():
            spread = mean.spread(name)
            row[title] = _MISSING if spread is None else _spread(name, spread, len(mean.runs))
        rows.append(row)
    return rows


def settings_of(run: Run, keys: Sequence[str]) -> Row:
    """Return what every table shows of a run's settings, and those of some keys, as text."""
    row = {name: _text(value) for name, value in run.base().items()}
    return row | {key: _text(run.settings.get(key)) for key in keys}


def _spread(name: str, spread: tuple[float, float, int], of: int) -> str:
    mean, deviation, number = spread
    text = result_text(name, mean)
    if number > 1:
        text += f" +- {result_text(name, deviation)}"
    return text if number == of else f"{text} (n = {number})"


def result_text(name: str, value: float | None) -> str:
    """Return a result as text: accuracies in percent, bytes in MB of 2^20."""
    if value is None:
        return _MISSING
    if name in _BYTES:
        return f"{value / MEGABYTE:,.2f}"
    return f"{value:.4f}" if name == "loss" else f"{100 * value:.2f}"


def _count(number: int | None) -> str:
    return _MISSING if number is None else f"{number:,}"


def _text(value: Any) -> str:
    if value is None:
        return _MISSING
    text = f"{value:g}" if isinstance(value, float) else str(without_places(value))
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


def counts(runs: Sequence[Run]) -> str:
    """Return how many runs have finished, were interrupted or failed, in words."""
    number: Mapping[str, int] = {
        status: sum(run.status == status for run in runs)
        for status in ("finished", "interrupted", "failed")
    }
    runs_in_words = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    return f"{runs_in_words}: " + ", ".join(f"{n} {status}" for status, n in number.items()) + "."


def reason_line(message: str) -> str:
    """Return the first line of why a run failed."""
    return next(iter(message.splitlines()), "no reason given")
