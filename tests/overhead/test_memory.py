"""A client's memory: by hand, and measured in a process of its own."""

import subprocess
import sys

import pytest

from mocosfl.overhead import memory, one_client
from mocosfl.overhead.memory import count_memory, measure_memory
from mocosfl.overhead.network import build_network
from tests.support.configurations import Compose

HEAD = 3 * 64 * 3 * 3 + 2 * 64
LATENT = 64 * 32 * 32


def test_tensors_of_a_client_with_the_stem_by_hand(compose: Compose):
    config = compose(["dataset=cifar10"])
    counted = count_memory(config, build_network(config), 2)
    assert counted.parameters == counted.momentum_copy == 4 * HEAD
    assert counted.sgd_buffer == counted.gradients == 4 * HEAD
    assert counted.images == 2 * 2 * 3 * 32 * 32 * 4
    # GroupNorm keeps its input, ReLU its output; the rest is a filter and its statistics.
    assert 0 <= counted.activations - 2 * 2 * LATENT * 4 < 4 * (3 * 1728 + 1000)
    assert counted.queue == 0
    assert counted.total == sum(counted)


def test_frozen_head_keeps_nothing_for_training(compose: Compose):
    config = compose(["dataset=cifar10", "optimizer.client_lr=0"])
    counted = count_memory(config, build_network(config), 1)
    assert counted[1:5] == (0, 0, 0, 0)
    assert counted.parameters == 4 * HEAD


def test_activations_shrink_under_bf16_and_grow_under_fp64(compose: Compose):
    kept = {}
    for precision in ("fp32", "bf16", "fp64"):
        config = compose(["dataset=cifar10", f"trainer.precision={precision}"])
        kept[precision] = count_memory(config, build_network(config), 4).activations
    assert kept["bf16"] < 0.6 * kept["fp32"]
    assert kept["fp64"] == 2 * kept["fp32"]


def test_client_with_the_whole_network_holds_its_queue(compose: Compose):
    config = compose(["dataset=cifar10", "method=fl_moco", "clients=20"])
    counted = count_memory(config, build_network(config), 1)
    assert counted.queue == 6000 // 20 * 1024 * 4
    config.moco.queue_length *= 10
    longer = count_memory(config, build_network(config), 1)
    # The backward pass needs the queue as it was, and the softmax of two rows over it.
    assert longer.activations - counted.activations == 9 * (counted.queue + 2 * 300 * 4)


def test_measurement_may_be_left_out(compose: Compose):
    config = compose(["callbacks.measure_client_memory=false"])
    peak, why_not = measure_memory(config, 1)
    assert peak is None
    assert "measure_client_memory=false" in why_not


def test_no_figure_where_the_system_does_not_tell(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "available", lambda: False)
    assert measure_memory(compose([]), 1).peak_bytes is None


def test_no_figure_where_the_process_fails_or_hangs(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
):
    def fail(*args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "Traceback\nMemoryError: too much\n")

    def hang(*args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired([], 1)

    monkeypatch.setattr(memory.subprocess, "run", fail)
    assert measure_memory(compose([]), 1) == (None, "the process failed: MemoryError: too much")
    monkeypatch.setattr(memory.subprocess, "run", hang)
    assert measure_memory(compose([]), 1).peak_bytes is None


@pytest.mark.slow
@pytest.mark.skipif(not one_client.available(), reason="needs Linux's /proc")
def test_measured_peak_covers_what_was_counted(compose: Compose):
    # Large enough (20 MB of activations) to stand out from what the libraries take.
    config = compose(["dataset=cifar10"])
    counted = count_memory(config, build_network(config), 40).total
    measured = measure_memory(config, 40)
    assert measured.why_not == ""
    assert measured.peak_bytes is not None
    # Kept besides: the gradient of the smashed data, what a layer computes before it is freed.
    assert counted < measured.peak_bytes < 6 * counted


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=monacosfl", "trainer=bf16"],
        ["optimizer.client_lr=0"],
        ["method=sfl_supervised"],
        ["method=fl_moco"],
        ["method=fl_moco", "trainer.precision=fp64"],
    ],
    ids=str,
)
def test_steps_of_a_client_run(compose: Compose, overrides: list[str]):
    one_client.run_steps(compose(["dataset=digits", "backbone.width=4", *overrides]), 2)


@pytest.mark.slow
@pytest.mark.skipif(not one_client.available(), reason="needs Linux's /proc")
def test_peak_is_that_since_the_last_reset():
    code = (
        "from mocosfl.overhead.one_client import peak, reset_peak; "
        "big = bytearray(80 << 20); del big; a = reset_peak(); "
        "print(peak() - a); b = bytearray(50 << 20); print(peak() - a)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, out.stdout.split())
    assert before < 5 << 20
    assert 45 << 20 < after < 60 << 20
