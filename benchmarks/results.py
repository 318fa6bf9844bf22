"""Command-line options that the benchmarks share, and how they show what they found."""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import ROOT, describe_machine, describe_run

RESULTS = ROOT / "benchmarks" / "results"


class Spread(NamedTuple):
    """The middle of some repeats and how far they lie apart."""

    median: float
    lower: float  # quartile
    upper: float  # quartile


class Table(NamedTuple):
    """A table with its heading."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles, which for two or three values are the outermost."""
    if len(values) < 4:
        return Spread(statistics.median(values), min(values), max(values))
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, lower, upper)


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """Return median and quartiles of the ratios round by round.

    Not the ratio of the medians: what slows the machine for a round slows both sides of it.
    """
    return spread([a / b for a, b in zip(numerator, denominator, strict=True)])


def make_parser(description: str, *, repeats: int) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks share.

    Args:
        description: of the command.
        repeats: rounds by default.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--repeats", type=positive, default=repeats, help="rounds of measurement")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="computes here")
    parser.add_argument("--threads", type=positive, default=None, help="of the CPU; None: all")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of table and JSON")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line (None: this process's) and fill in the number of threads."""
    import torch

    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no GPU here that this PyTorch can use; choose cpu")
    options.threads = options.threads or torch.get_num_threads()
    return options


def positive(text: str) -> int:
    """Read an option that is a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: give at least 1")
    return number


def publish(
    name: str, options: argparse.Namespace, tables: Sequence[Table], raw: dict[str, Any]
) -> None:
    """Print the tables, and write `<name>.md` and `<name>.json`.

    Args:
        name: of the benchmark.
        options: of its command line.
        tables: what was found.
        raw: all repeats and what was computed from them, plain values.
    """
    machine, run = describe_machine(options.device, options.threads), describe_run()
    facts = {**machine, **run}
    head = [f"- {key}: {value}" for key, value in facts.items() if value is not None]
    text = "\n".join([f"# {name}", "", *head, *(line for t in tables for line in _markdown(t))])
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.md").write_text(text + "\n")
    settings = {key: _plain(value) for key, value in vars(options).items()}
    content = {"name": name, "machine": machine, **run, "options": settings, **raw}
    (options.out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def _markdown(table: Table) -> list[str]:
    lines = ["", f"## {table.title}", "", _row(table.columns), _row(["---"] * len(table.columns))]
    lines += [_row(row) for row in table.rows]
    return lines + [line for note in table.notes for line in ("", note)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def seconds(value: float) -> str:
    """Format seconds with three digits, in ms below one."""
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def ratio(value: Spread) -> str:
    """Format a ratio with the quartiles of its rounds."""
    return f"{value.median:.3g} ({value.lower:.3g} to {value.upper:.3g})"


def megabytes(num_bytes: float) -> str:
    """Format bytes as MB of 2^20 bytes."""
    return f"{num_bytes / 2**20:,.0f} MB"
