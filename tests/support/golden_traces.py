"""Reading the traces of the published implementation; `golden/README.md` explains the format.

Everything that follows from a trace's numbers is built here (models, inputs, queues, the figures
to compare), so that the oracle and the training classes are tested by the same lines.
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mocosfl.models.projector import Projector
from mocosfl.models.split import Bottleneck, Head, Trunk, split_backbone
from tests.support.paths import ROOT

RELATIVE_TOLERANCE = 1e-6
# A sum of a tensor may cancel to nearly nothing; below this a figure counts as zero.
ABSOLUTE_TOLERANCE = 1e-9

Trace = dict[str, Any]  # keys: config, init, inputs, expected

# (prefix in our state dicts, prefix in the traces)
_PREFIXES = (
    ("units.", ""),
    ("down.convs.", "bottleneck.down."),
    ("up.convs.", "bottleneck.up."),
    ("linears.", "projector."),
)


class Models(NamedTuple):
    """A trace's initial modules, float64."""

    head: Head
    trunk: Trunk
    projector: Projector


def trace_files() -> list[Path]:
    """Return the JSON files of the folder MOCOSFL_GOLDEN_DIR, or of `tests/golden`."""
    folder = Path(os.environ.get("MOCOSFL_GOLDEN_DIR") or ROOT / "tests" / "golden")
    files = sorted(folder.glob("*.json"))
    if not files:
        raise FileNotFoundError(f"MOCOSFL_GOLDEN_DIR={folder}: no trace (*.json) in this folder")
    return files


def load_trace(path: Path) -> Trace:
    """Read one trace."""
    trace: Trace = json.loads(path.read_text())
    return trace


def parse_bottleneck(text: str | None) -> Bottleneck | None:
    """Read "C4S2", with options "K5" (kernel) and "noReLU"; None and "None" are no bottleneck."""
    if text is None or text.lower() == "none":
        return None
    without_relu = re.sub("norelu", "", text, flags=re.IGNORECASE)
    numbers = {letter: int(number) for letter, number in re.findall(r"([CSK])(\d+)", without_relu)}
    return Bottleneck(
        numbers["C"], numbers["S"], kernel_size=numbers.get("K", 3), relu=without_relu == text
    )


def build_models(trace: Trace) -> Models:
    """Build head, trunk and projector and give them the trace's initial values."""
    config = trace["config"]
    split = split_backbone(
        config["arch"].lower(),
        width=config.get("width", 64),
        image_size=config["size"],
        cut_layer=config["cut"],
        bottleneck=parse_bottleneck(config.get("bottleneck")),
    )
    hidden_dim = config["hidden"] if config["proj"] == "mlp" else None
    projector = Projector(split.feature_dim, hidden_dim=hidden_dim, embedding_dim=config["dim"])
    models = Models(split.head.double(), split.trunk.double(), projector.double())
    client = our_names(initial_tensors(trace["init"]["client"]))
    server = our_names(initial_tensors(trace["init"]["server"]))
    models.head.load_state_dict(client)
    for module, is_projector in ((models.trunk, False), (models.projector, True)):
        module.load_state_dict(
            {n: value for n, value in server.items() if n.startswith("linears.") is is_projector}
        )
    return models


def initial_tensors(entries: Sequence[tuple[str, list[int], int]]) -> dict[str, Tensor]:
    """Return the traces' initial values, by their names, from [name, shape, seed]."""
    tensors = {}
    for name, shape, seed in entries:
        values = np.random.RandomState(seed).standard_normal(shape)
        if len(shape) > 1:
            values *= math.sqrt(2 / math.prod(shape[1:]))
        else:
            values = 0.1 * values + (1.0 if name.endswith("weight") else 0.0)
        tensors[name] = torch.from_numpy(values)
    return tensors


def our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename from a trace's names to those of `Head`, `Trunk` and `Projector`."""
    renamed = {}
    for name, tensor in tensors.items():
        matches = [(a, b) for a, b in _PREFIXES if b and name.startswith(b)]
        ours, theirs = matches[0] if matches else ("units.", "")
        renamed[ours + name.removeprefix(theirs)] = tensor
    return renamed


def golden_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename from the state dict of a head, a trunk or a projector to a trace's names."""
    renamed = {}
    for name, tensor in state.items():
        ours, theirs = next((a, b) for a, b in _PREFIXES if name.startswith(a))
        renamed[theirs + name.removeprefix(ours)] = tensor
    return renamed


def initial_queues(trace: Trace) -> list[Tensor]:
    """Return the initial (D, K) queue, or a private one of K // N for each client."""
    config, seed = trace["config"], trace["init"]["queue_seed"]
    num_queues = 1 if config["sharing"] else config["clients"]
    length = config["queue"] // num_queues
    queues = []
    for index in range(num_queues):
        values = np.random.RandomState(seed + index).standard_normal((config["dim"], length))
        queues.append(torch.from_numpy(values / np.linalg.norm(values, axis=0)))
    return queues


def views(trace: Trace) -> tuple[Tensor, Tensor]:
    """Return view 1 and view 2, each (steps, P, b, 3, H, W)."""
    inputs = trace["inputs"]
    seeds = (inputs["view1_seed"], inputs["view2_seed"])
    one, two = (np.random.RandomState(seed).standard_normal(inputs["shape"]) for seed in seeds)
    return torch.from_numpy(one), torch.from_numpy(two)


def step_figures(
    *, loss: float, contrast_accuracy: float, query: Tensor, key: Tensor, grad: Tensor
) -> dict[str, float]:
    """Return the figures of one step; query, key and grad are the pool's smashed tensors."""
    return {
        "loss": loss,
        "contrast_accuracy": contrast_accuracy,
        "smashed_query_sum": query.sum().item(),
        "smashed_query_norm": query.norm().item(),
        "smashed_key_sum": key.sum().item(),
        "smashed_key_norm": key.norm().item(),
        "smashed_grad_norm": grad.norm().item(),
    }


def tensor_figures(*states: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Return name -> [sum, L2 norm], by the traces' names; several states count as one module."""
    named = {n: tensor for state in states for n, tensor in golden_names(state).items()}
    return {name: [t.sum().item(), t.norm().item()] for name, t in named.items()}


def queue_figures(queues: Sequence[Tensor], pointers: Sequence[int]) -> dict[str, list[Any]]:
    """Return the figures of the queues after the last step; each queue is (D, K)."""
    return {
        "final_queue_sum": [queue.sum().item() for queue in queues],
        "final_queue_first_columns": [queue[:4, :6].tolist() for queue in queues],
        "final_queue_pointer": [int(pointer) for pointer in pointers],
    }


def over_steps(steps: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Turn a list of `step_figures` into figure -> list over the steps."""
    return {name: [step[name] for step in steps] for name in steps[0]}


def mismatches(expected: Any, measured: Any, where: str = "") -> list[str]:
    """Return a line for each figure that differs, is missing or is too many.

    Args:
        expected: a trace's `expected`: nested dicts and lists of numbers.
        measured: the same nesting.
        where: path of the figure, for the message.
    """
    if isinstance(expected, dict):
        if not isinstance(measured, Mapping) or expected.keys() != measured.keys():
            return [f"{where}: keys {sorted(expected)}, measured {sorted(measured)}"]
        pairs = [(key, expected[key], measured[key]) for key in expected]
    elif isinstance(expected, list):
        if len(expected) != len(measured):
            return [f"{where}: {len(expected)} values, measured {len(measured)}"]
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(expected, measured, strict=True))]
    else:
        close = math.isclose(
            expected, measured, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE
        )
        return [] if close else [f"{where}: {expected}, measured {measured}"]
    return [line for key, a, b in pairs for line in mismatches(a, b, f"{where}/{key}")]
