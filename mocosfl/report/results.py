"""What a run has reached, as its files tell it; read without torch."""

from pathlib import Path
from typing import Any, NamedTuple

from mocosfl.runs.probe_names import LINEAR, semi_supervised_name
from mocosfl.runs.read_metrics import read_metrics

PROBES = {
    "linear": LINEAR,
    "semi_10": semi_supervised_name(0.1),
    "semi_1": semi_supervised_name(0.01),
}
_CURVES = {"knn_monitor": "val/knn_top1", "loss": "train/loss"}
RESULTS = {
    "knn_monitor": "kNN monitor (training images)",
    "knn": "kNN",
    "linear": "linear",
    "semi_10": "10 % labels",
    "semi_1": "1 % labels",
    "loss": "loss",
    "true_bytes": "MB a client, true",
    "paper_bytes": "MB a client, paper",
}
"""Names of what a run has reached, and their titles in a table."""


class Newest(NamedTuple):
    """The newest value of a curve."""

    value: float
    steps: int  # done when it was logged


def newest_values(metrics: Path) -> dict[str, Newest]:
    """Return the newest value of each column of metrics.csv.

    Raises:
        ValueError: the file is damaged, or a value is not a number.
    """
    values: dict[str, Newest] = {}
    try:
        for row in read_metrics(metrics):
            steps = int(float(row.get("step") or "nan")) + 1  # the file counts from 0
            values.update({k: Newest(float(v), steps) for k, v in row.items() if k and v})
    except OverflowError as error:
        raise ValueError(f"not readable (step: {error})") from error
    return values


def results_of(
    probe: dict[str, Any], overhead: dict[str, Any], curves: dict[str, Newest]
) -> dict[str, float | None]:
    """Return a run's results by the names of RESULTS, None of what is not known.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: a file is not of the form that it has.
    """
    client = overhead.get("mean_client", {})
    logged = {name: curves[column].value for name, column in _CURVES.items() if column in curves}
    values: dict[str, float | None] = {
        "knn_monitor": logged.get("knn_monitor"),
        "knn": probe.get("knn_top1"),
        "loss": logged.get("loss"),
        "paper_bytes": client.get("paper_bytes"),
        "true_bytes": client["up_bytes"] + client["down_bytes"] if client else None,
    }
    for name, names in PROBES.items():
        values[name] = probe.get("probes", {}).get(names.recorded, {}).get("final_top1")
    strange = [k for k, v in values.items() if v is not None and not isinstance(v, (int, float))]
    if strange:
        raise ValueError(f"no number: {', '.join(strange)}")
    return values


def result_steps_of(probe: dict[str, Any], curves: dict[str, Newest]) -> dict[str, int]:
    """Return how many steps had been done when a result was measured, where that is known."""
    steps = {name: curves[column].steps for name, column in _CURVES.items() if column in curves}
    if "encoder_step" in probe:
        steps |= dict.fromkeys(("knn", *PROBES), probe["encoder_step"])
    return steps
