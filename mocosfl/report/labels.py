"""Short names of the runs of a sweep: what tells them apart."""

from collections.abc import Sequence
from typing import Any

from mocosfl.config.methods import method_of
from mocosfl.report.runs import Run
from mocosfl.report.table import Columns, settings_of

_WORDS = {"clients": "{} clients", "cut": "cut {}"}


def labels_of(runs: Sequence[Run], columns: Columns) -> list[str]:
    """Return a label a run, all different: the settings that vary, or the folder's name."""
    rows = [settings_of(run, columns.shown) for run in runs]
    varying = [key for key in rows[0] if len({row[key] for row in rows if row[key] != "-"}) > 1]
    labels = [
        ", ".join(_words(key, row[key]) for key in varying if row[key] != "-") for row in rows
    ]
    return [_unique(label, run.name, labels) for run, label in zip(runs, labels, strict=True)]


def _unique(label: str, name: str, labels: Sequence[str]) -> str:
    if not label:
        return name
    return label if labels.count(label) == 1 else f"{label} ({name})"


def _words(key: str, value: str) -> str:
    if key in _WORDS:
        number = f"{int(value):,}" if value.isdigit() else value
        return "1 client" if (key, value) == ("clients", "1") else _WORDS[key].format(number)
    name = key.rpartition(".")[2]
    return value if "." not in key and key != "seed" else f"{name} {value}"


def in_words(run: Run) -> str:
    """Return in one line what a run is."""
    base: dict[str, Any] = run.base()
    if base["method"] is None:
        return "a run without a readable configuration"
    parts = [f"{base['method']} on {base['dataset']}"]
    if not method_of(base["method"]).central:
        number = base["clients"]
        parts += [f"{number:,} clients" if number != 1 else "1 client", str(base["partition"])]
    parts.append("whole network on the client" if base["cut"] == "whole" else f"cut {base['cut']}")
    backbone = f"{run.settings.get('backbone.name')}, width {run.settings.get('backbone.width')}"
    return ", ".join([*parts, backbone, f"seed {run.seed}"])
