"""The plain-loop oracle equals the published implementation, figure by figure.

All traces together take minutes in float64. `test_golden.py` runs them all through the training
classes, so the two cheapest are enough here; MOCOSFL_ORACLE_TRACES=all runs every one.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from mocosfl.models.split import Bottleneck
from tests.support.golden_traces import (
    Trace,
    build_models,
    initial_queues,
    load_trace,
    mismatches,
    over_steps,
    parse_bottleneck,
    queue_figures,
    step_figures,
    tensor_figures,
    trace_files,
    views,
)
from tests.support.reference import ReferenceFederation

CHEAPEST = ("vgg11_cut2",)


def chosen_traces() -> list[Path]:
    """Return the traces to run: the cheapest of them, or all if the user asks for all."""
    if os.environ.get("MOCOSFL_ORACLE_TRACES") == "all":
        return trace_files()
    return [path for path in trace_files() if path.stem in CHEAPEST]


def replay(trace: Trace) -> dict[str, Any]:
    """Run a trace's steps through the oracle and return the figures it expects."""
    config = trace["config"]
    models = build_models(trace)
    federation = ReferenceFederation(
        models.head,
        nn.Sequential(models.trunk, models.projector),
        num_clients=config["clients"],
        queues=initial_queues(trace),
        symmetric=config["symmetric"],
        align_momentum=config["sync_momentum"],
        temperature=config["T"],
        server_lr=config["lr"],
        client_lr=config["client_lr"],
    )
    steps = []
    for number, (pool, x1, x2) in enumerate(zip(config["pools"], *views(trace), strict=True), 1):
        step = federation.step(pool, x1, x2)
        if number in config["sync_after"]:
            federation.sync(pool)
        steps.append(
            step_figures(
                loss=step.loss,
                contrast_accuracy=step.contrast_accuracy,
                query=step.smashed_query,
                key=step.smashed_key,
                grad=step.smashed_grad,
            )
        )
    online, momentum = federation.server, federation.momentum_server
    queues = federation.queues
    return {
        **over_steps(steps),
        **queue_figures([q.columns for q in queues], [q.pointer for q in queues]),
        "final_client_online": [tensor_figures(h.state_dict()) for h in federation.heads],
        "final_client_momentum": [
            tensor_figures(h.state_dict()) for h in federation.momentum_heads
        ],
        "final_server_online": tensor_figures(*(part.state_dict() for part in online)),
        "final_server_momentum": tensor_figures(*(part.state_dict() for part in momentum)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("path", chosen_traces(), ids=lambda path: path.stem)
def test_oracle_reproduces_the_published_trace(path: Path) -> None:
    trace = load_trace(path)
    assert mismatches(trace["expected"], replay(trace)) == []


def test_comparison_reports_figures_that_differ_are_missing_or_are_too_many() -> None:
    expected = {"loss": [1.0, 2.0], "final_queue_pointer": [3]}

    assert mismatches(expected, {"loss": [1.0, 2.0 + 1e-7], "final_queue_pointer": [3]}) == []
    for measured in (
        {"loss": [1.0, 2.00001], "final_queue_pointer": [3]},
        {"loss": [1.0, float("nan")], "final_queue_pointer": [3]},
        {"loss": [1.0], "final_queue_pointer": [3]},
        {"loss": [1.0, 2.0]},
        {"loss": [1.0, 2.0], "final_queue_pointer": [3], "more": 0},
    ):
        assert len(mismatches(expected, measured)) == 1


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        (None, None),
        ("None", None),
        ("C4S2", Bottleneck(4, 2)),
        ("C16S4K5", Bottleneck(16, 4, kernel_size=5)),
        ("K5C8S1noReLU", Bottleneck(8, 1, kernel_size=5, relu=False)),
    ],
)
def test_bottleneck_of_a_trace_is_read(text: str | None, pair: Bottleneck | None) -> None:
    assert parse_bottleneck(text) == pair
