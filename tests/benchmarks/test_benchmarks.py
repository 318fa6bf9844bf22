"""The benchmarks compare like with like, and their commands write what they promise."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import (
    arithmetic,
    edge,
    edge_link,
    parts,
    probe,
    scale,
    startup,
    step,
    until_plan,
    views,
)
from benchmarks.central import CentralMoco
from benchmarks.contest import Pace, race
from benchmarks.first_step import PHASES
from benchmarks.loop import LoopFederation
from benchmarks.parts import PARTS, Parts
from benchmarks.results import Spread, ratios, spread
from mocosfl.overhead.compute import count_macs
from tests.support.reference import ReferenceFederation
from tests.support.shaped_link import why_not
from tests.support.small_federation import (
    DIM,
    TAU,
    TEMPERATURE,
    make_projector,
    make_queue,
    make_split,
    make_views,
)

NUM_CLIENTS, BATCH = 4, 2
QUEUE_LENGTH = 22  # not a multiple of a step's 16 keys, so that a step wraps


def make_reference(kind: type[ReferenceFederation], **more: Any) -> Any:
    """Build an oracle, or the benchmarks' variety of it."""
    split = make_split()
    return kind(
        split.head,
        nn.Sequential(split.trunk, make_projector(split)),
        num_clients=NUM_CLIENTS,
        queues=[make_queue(1, QUEUE_LENGTH).keys[0].T],
        symmetric="server",
        align_momentum=False,
        temperature=TEMPERATURE,
        server_lr=0.05,
        client_lr=0.1,
        tau=TAU,
        **more,
    )


def test_loop_equals_the_oracle_over_steps_pools_and_a_sync() -> None:
    oracle, loop = make_reference(ReferenceFederation), make_reference(LoopFederation)
    loop.prepare()
    for number, pool in enumerate(([0, 1, 2, 3], [3, 1, 0, 2], [0, 1, 2, 3])):
        view1, view2 = (list(view) for view in make_views(number, NUM_CLIENTS, BATCH))
        expected, found = oracle.step(pool, view1, view2), loop.step(pool, view1, view2)
        assert found.loss == pytest.approx(expected.loss, rel=1e-12)
        assert found.contrast_accuracy == expected.contrast_accuracy
        torch.testing.assert_close(found.smashed_grad, expected.smashed_grad)
        if number == 1:
            assert loop.sync(pool) == pytest.approx(oracle.sync(pool))
    torch.testing.assert_close(loop.queues[0].columns, oracle.queues[0].columns)
    assert loop.queues[0].pointer == oracle.queues[0].pointer
    for found_head, expected_head in zip(loop.heads, oracle.heads, strict=True):
        for a, b in zip(found_head.parameters(), expected_head.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_central_moco_equals_the_oracle_whose_clients_only_pass_images_on() -> None:
    split, queue = make_split(), make_queue(1, QUEUE_LENGTH)
    network = nn.Sequential(split.head, split.trunk, make_projector(split))
    through = nn.Conv2d(3, 3, 1, bias=False).double()
    nn.init.dirac_(through.weight)
    oracle = ReferenceFederation(
        through,
        network,
        num_clients=1,
        queues=[queue.keys[0].T],
        symmetric="server",
        align_momentum=False,
        temperature=TEMPERATURE,
        server_lr=0.05,
        client_lr=0.0,
        tau=TAU,
    )
    central = CentralMoco(
        network,
        queue,
        temperature=TEMPERATURE,
        tau=TAU,
        lr=0.05,
        sgd_momentum=0.9,
        weight_decay=5e-4,
    )
    for number in range(3):
        view1, view2 = make_views(number, 1, NUM_CLIENTS * BATCH)
        expected = oracle.step([0], list(view1), list(view2))
        assert float(central.step(view1[0], view2[0], bf16=False)) == pytest.approx(expected.loss)
    torch.testing.assert_close(queue.keys[0].T, oracle.queues[0].columns)
    assert queue.keys.shape == (1, QUEUE_LENGTH, DIM)


def test_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    assert ratios([4.0, 6.0, 80.0], [2.0, 2.0, 40.0]) == Spread(2.0, 2.0, 3.0)
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3.0, 2.0, 4.0)


def test_part_inside_another_stops_the_others_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 7.0])
    monkeypatch.setattr(parts.time, "perf_counter", lambda: next(clock))
    watch = Parts("cpu")
    watch.start("data")
    watch.start("views")
    watch.stop()
    watch.stop()

    taken = watch.take()

    assert (taken["data"], taken["views"]) == (5.0, 2.0)
    assert sum(taken.values()) == 7.0
    assert sum(watch.take().values()) == 0.0


def test_step_refuses_rounds_that_do_not_end_with_a_block() -> None:
    with pytest.raises(ValueError, match=r"--steps=4: 1000 images of 100 clients"):
        step.main(["--images", "1000", "--pools", "100", "--cuts", "--steps", "4"])


def read(folder: Path, name: str) -> dict[str, Any]:
    """Read a benchmark's JSON; its table must be there, and the facts that all have."""
    table = (folder / f"{name}.md").read_text()
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    assert table.startswith(f"# {name}\n") and "| --- |" in table
    for key in ("processor", "cores", "threads", "gpu", "torch"):
        assert key in content["machine"]
    assert content["machine"]["processor"] in table
    for key in ("date", "commit", "command"):
        assert content[key] in table
    assert content["options"]["out"] == str(folder)
    return content


def test_probe_counts_the_images_of_both_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--images", "400", "--test-images", "40", "--measured-images", "8", "--epochs", "2"]
    probe.main(["--width", "4", "--repeats", "2", "--out", str(tmp_path), *sizes])

    content = read(tmp_path, "probe")
    assert content["network_images"] == {"ours": 440, "rerun": 2 * (400 + 40 + 4) + 400 + 4 * 40}
    assert len(content["seconds"]["network"]) == len(content["ours_seconds"]) == 2
    assert content["ours_is_faster"]["median"] > 0
    assert "ours is faster by" in capsys.readouterr().out


def test_arithmetic_counts_the_convolutions_of_a_step(tmp_path: Path) -> None:
    sizes = ["--width", "4", "--image-size", "8", "--rows", "3", "--product-size", "16"]
    arithmetic.main([*sizes, "--repeats", "1", "--out", str(tmp_path)])

    split = make_split(width=4, image_size=8)
    forward = 2 * count_macs(lambda: split.trunk.double()(torch.zeros(6, 4, 8, 8).double()))
    for found in read(tmp_path, "arithmetic")["precisions"].values():
        assert found["step_flops"] == 4 * forward
        parts_of_step = 2 * found["forward_seconds"] + found["backward_seconds"]
        assert found["step_seconds"] == pytest.approx(parts_of_step)
        assert found["product_flops_per_second"] > 0


def tell_order(settings: tuple[Path, str], pace: Pace) -> None:
    """A contestant that writes down when its steps begin."""
    path, name = settings
    pace.begin()
    while True:
        with path.open("a") as file:
            file.write(name)
        time.sleep(0.01)
        pace.step_done()


def fail(settings: None, pace: Pace) -> None:
    """A contestant that cannot be built."""
    raise ValueError("no such thing")


@pytest.mark.slow
def test_contestants_take_turns_and_each_round_begins_with_another(tmp_path: Path) -> None:
    path = tmp_path / "order"
    contestants = {name: (tell_order, (path, name)) for name in "ab"}

    blocks = race(contestants, device="cpu", num_threads=1, repeats=2, num_steps=3)

    # The warm-up of both, the first round, the second.
    assert path.read_text() == "aaa" + "bbb" + "aaabbb" + "bbbaaa"
    assert all(block.step_seconds >= 0.01 for of in blocks.values() for block in of)
    assert all(0 < b.memory.own_bytes < b.memory.peak_bytes for b in blocks["a"])


@pytest.mark.slow
def test_contestant_that_fails_is_named_with_its_reason() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)broken failed:.*no such thing"):
        race({"broken": (fail, None)}, device="cpu", num_threads=1, repeats=1, num_steps=1)


TINY = ["--width", "4", "--image-size", "8", "--repeats", "2"]


@pytest.mark.slow
def test_step_times_all_contestants_and_parts_that_add_up(tmp_path: Path) -> None:
    small = ["moco.queue_length=64", "moco.projector_dim=8"]
    sizes = ["--cuts", "--pools", "4", "--images", "16", "--steps", "2", "--precision", "fp32"]
    step.main([*TINY, *sizes, "--out", str(tmp_path), "--set", *small])

    (case,) = read(tmp_path, "step")["cases"]
    assert set(case["blocks"]) == {"ours", "loop", "central", "shared"}
    assert all(len(blocks) == 2 for blocks in case["blocks"].values())
    assert set(case["ours_against"]) == {"loop", "central", "shared"}
    for block in case["parts"]:
        timed = {name: block["parts"][name] for name in PARTS}
        assert sum(timed.values()) < block["step_seconds"]
        # Only the change of the pool is not in every step.
        assert all(seconds > 0 for name, seconds in timed.items() if name != "change of pool")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "main", "sizes", "cases"),
    [
        ("views", views.main, ["--images", "8", "--image-size", "8", "--repeats", "2"], 1),
        (
            "scale",
            scale.main,
            [*TINY, "--clients", "4", "8", "--pool", "4", "--steps", "2", "--states", "bank"],
            2,
        ),
    ],
)
def test_command_writes_every_repeat(
    name: str,
    main: Callable[[list[str]], None],
    sizes: list[str],
    cases: int,
    tmp_path: Path,
) -> None:
    main([*sizes, "--out", str(tmp_path)])

    content = read(tmp_path, name)
    found = content["cases"] if name == "views" else content["states"]["bank"]
    blocks = found[0]["blocks"] if name == "views" else found["blocks"]
    assert len(blocks) == (3 if name == "views" else cases)
    assert all(len(of) == 2 and of[0]["step_seconds"] > 0 for of in blocks.values())


@pytest.mark.slow
def test_startup_writes_seconds_and_memory_of_each_phase(tmp_path: Path) -> None:
    small = ["moco.queue_length=64", "moco.projector_dim=8"]
    sizes = ["--clients", "4", "--pool", "4", "--repeats", "1"]
    startup.main([*TINY, *sizes, "--out", str(tmp_path), "--set", *small])

    (start,) = read(tmp_path, "startup")["starts"]["4"]
    assert list(start["seconds"]) == list(start["own_bytes"]) == list(PHASES)
    assert all(seconds > 0 for seconds in start["seconds"].values())


TINY_EDGE = ["--width", "4", "--image-size", "8", "--clients", "2", "--images-per-client", "24"]
TINY_MOCO = ["--set", "moco.queue_length=64", "moco.projector_hidden=16", "moco.projector_dim=8"]


def equal_bytes(run: dict[str, Any]) -> None:
    """Check that the tensors of a run are the predicted bytes, and that the messages hold them."""
    server, all_steps = run["server"], run["client_steps"]
    assert server["steps"] == all_steps and run["left_out"] == 0
    assert server["smashed_up"] + server["weights_up"] == server["predicted_up"] > 0
    assert server["gradients_down"] + server["weights_down"] == server["predicted_down"] > 0
    assert sum(run["received"].values()) == server["down"]
    # The clients count a Hello that found no server yet, too.
    assert sum(run["sent"].values()) - run["sent"]["hello"] < server["up"]


@pytest.mark.slow
def test_edge_sees_both_and_counts_the_predicted_bytes(tmp_path: Path) -> None:
    sizes = ["--processes", "2", "--steps", "24", "--every", "1", "--precisions", "fp32"]
    edge.main([*TINY_EDGE, *sizes, "--out", str(tmp_path), *TINY_MOCO])

    runs = read(tmp_path, "edge")["runs"]
    assert list(runs) == ["simulation", "fp32"]
    for run in runs.values():
        assert len(run["losses"]) == 24
        assert run["steps_per_second"] > 0 and run["server_cpu_seconds"] > 0
        assert 0 < run["first_bytes"] <= run["most_bytes"]
    assert runs["fp32"]["client_steps"] == 2 * 24
    # The same images, views and weights; later losses differ by how rounding grows in training.
    first = [runs[name]["losses"][0] for name in runs]
    assert first[0] == pytest.approx(first[1], rel=1e-4)
    equal_bytes(runs["fp32"])


@pytest.mark.slow
def test_edge_link_counts_what_goes_over_the_link(tmp_path: Path) -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    sizes = ["--batch", "2", "--steps", "12", "--every", "1", "--precisions", "fp32"]
    edge_link.main([*TINY_EDGE, *sizes, "--out", str(tmp_path), *TINY_MOCO])

    runs = read(tmp_path, "edge_link")["runs"]
    for run in runs.values():
        equal_bytes(run)
        assert run["link"]["sent_bytes"] > run["server"]["up"]
        assert run["link"]["received_bytes"] > run["server"]["down"]
    speeds = {name: run["steps_per_second"] for name, run in runs.items()}
    assert speeds["fp32, shaped"] < speeds["fp32, without limits"]


@pytest.mark.slow
def test_until_plan_stops_at_the_plan_and_tells_a_run_without_one(tmp_path: Path) -> None:
    assert 0.5 < until_plan.until_plan(tmp_path, ["debug=one_step"]) < 120
    assert not list(tmp_path.glob("*/checkpoints"))
    with pytest.raises(RuntimeError, match=r"no plan was printed(.|\n)*clients.num_clients=0"):
        until_plan.until_plan(tmp_path, ["clients.num_clients=0"])
