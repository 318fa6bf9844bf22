"""The classes that train reproduce the published implementation's traces, through Lightning."""

from pathlib import Path

import pytest

from tests.support.golden_traces import load_trace, mismatches, trace_files
from tests.support.golden_training import replay

# Full-width networks in float64, 10 to 26 s of an idle core each; the fast suite has one of nine.
SLOW = (
    "resnet18_asymmetric_linear",
    "resnet18_cut1",
    "resnet18_cut2_bottleneck",
    "resnet18_cut3_sampled",
    "resnet18_cut4_aligned",
    "resnet18_frozen_clients",
    "resnet18_private_queues",
    "resnet50_cut2",
)
TRACES = [
    pytest.param(path, marks=[pytest.mark.slow] if path.stem in SLOW else [], id=path.stem)
    for path in trace_files()
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", TRACES)
def test_training_reproduces_the_published_trace(path: Path, tmp_path: Path) -> None:
    trace = load_trace(path)
    assert mismatches(trace["expected"], replay(trace, tmp_path)) == []
