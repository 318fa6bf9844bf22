"""Reading `metrics.csv`: its rows, and the curves in them. Steps are counted from 0."""

import csv
from pathlib import Path

from mocosfl.runs.json_records import DamagedFile

Row = dict[str, str]  # of a table: column -> text


def read_metrics(path: Path) -> list[Row]:
    """Return the rows of a metrics file, values as text, absent ones as ""; [] without a file.

    Raises:
        DamagedFile: it can't be read.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", errors="replace") as file:
            return list(csv.DictReader(file))
    except (csv.Error, OSError) as error:
        raise DamagedFile(path, f"not readable ({type(error).__name__})") from error


def read_curves(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return name -> (steps, values) of a metrics file."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in read_metrics(path):
        for name, value in row.items():
            if name != "step" and value:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(float(row["step"]))
                values.append(float(value))
    return curves
