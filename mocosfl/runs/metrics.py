"""Reading `metrics.csv`."""

import csv
from pathlib import Path

Row = dict[str, str]


def read_metrics(path: Path) -> list[Row]:
    """Return the rows of a metrics file, values as text, absent ones as ""; [] without a file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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
