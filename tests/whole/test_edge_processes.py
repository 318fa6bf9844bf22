"""Clients that are killed, frozen, late or hostile while a federation trains."""

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mocosfl.data.loader import StepLoader
from mocosfl.federation.step_input import Step, rows_by_group
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves
from mocosfl.training.run import train
from tests.support.checkpoints import read
from tests.support.configurations import Compose
from tests.support.edge_federation import (
    deal,
    deployment_of,
    ended,
    start_clients,
    tallies,
    with_edge,
)
from tests.support.edge_machines import SMALL, make_machines
from tests.support.edge_streams import Stream, hello, wait_until
from tests.support.mutations import mutated_messages

pytestmark = pytest.mark.slow
log = logging.getLogger(__name__)

SCRIPT: dict[str, Any] = {"pause_seconds": 0.03, "give_up_after": 120}


def test_killed_client_is_done_without_and_comes_back_and_a_server_that_ends_says_so(
    compose_quick: Compose, tmp_path: Path
):
    patient = ["edge.step_deadline_seconds=120", "edge.keepalive_seconds=60"]
    with make_machines(compose_quick, tmp_path, *patient) as lab:
        lab.start_server()
        others, killed = lab.start_clients(0, 2, **SCRIPT), lab.start_clients(1, **SCRIPT)
        lab.wait_for_step(5)
        standing = lab.stand_still(killed)  # in a step that waits for it
        begun = time.monotonic()
        killed.kill()
        lab.wait_for_step(standing + 1)
        noticed = time.monotonic() - begun
        assert noticed < 10  # by the end of its connection, not by the deadline
        lab.wait_for_words("client 1: disconnected")
        begun = time.monotonic()
        again = lab.start_clients(1, **SCRIPT)
        lab.wait_for_words("client 1: connected", times=2)
        came_back = time.monotonic() - begun
        wait_until(lambda: "starts from the server's head" in lab.client_log(again))
        # It is in the steps again: they wait for it.
        lab.wait_for_step(lab.steps() + 5)
        standing = lab.stand_still(again)
        assert lab.server is not None
        lab.server.send_signal(signal.SIGTERM)  # in a step that waits
        assert lab.end_of_server() == 128 + signal.SIGTERM, lab.log()
        again.send_signal(signal.SIGCONT)
        words = "the server is going away: the server stops and will be back; trying again"
        wait_until(lambda: words in lab.client_log(others) and words in lab.client_log(again))
        assert lab.run.last.is_file() and not lab.run.finished.is_file()
    log.warning("killed: noticed after %.2f s, back after %.1f s", noticed, came_back)


def test_frozen_client_is_left_out_and_goes_on_with_its_live_state(
    compose_quick: Compose, tmp_path: Path
):
    short = ["edge.step_deadline_seconds=0.5", "edge.keepalive_seconds=5", "trainer.max_steps=250"]
    with make_machines(compose_quick, tmp_path, *short) as lab:
        lab.start_server()
        slowly = {**SCRIPT, "pause_seconds": 0.1}  # the run must not be over before it is noticed
        others, frozen = lab.start_clients(0, 2, **slowly), lab.start_clients(1, **slowly)
        lab.wait_for_step(5)
        lab.stand_still(frozen)
        lab.wait_for_words("client 1: too late, the step goes on without it")
        lab.wait_for_step(lab.steps() + 1)  # without it
        frozen.send_signal(signal.SIGCONT)
        lab.wait_for_step(lab.steps() + 20)
        # By now a slow machine may have noticed it, and it has come back.
        lost = lab.log().count("client 1: disconnected")
        begun = time.monotonic()
        lab.stand_still(frozen)
        lab.wait_for_words("client 1: disconnected", times=lost + 1)
        noticed = time.monotonic() - begun
        frozen.send_signal(signal.SIGCONT)
        begun = time.monotonic()
        lab.wait_for_words("client 1: connected", times=lost + 2)
        came_back = time.monotonic() - begun
        assert lab.end_of_server() == 0, lab.log()
        done = tallies(others) | tallies(frozen)
        assert lab.client_log(frozen).count("goes on") == lost + 1
        streams = json.loads(lab.run.edge.read_text())["clients"]
    assert done[1]["reconnects"] == lost + 1 and done[1]["left_out"] >= 1
    assert 0 < done[1]["steps"] < 250 and done[0]["steps"] > done[1]["steps"]
    assert streams["1"]["lost"] == lost + 1 and streams["1"]["late_steps"] >= 2
    assert [streams[c]["refusals"] for c in "012"] == [0, 0, 0]
    log.warning("frozen: noticed after %.2f s, back after %.2f s", noticed, came_back)


def attack(address: str, number: int, told: list[str]) -> None:
    """Take client 1's place and send it damaged messages."""
    stream = Stream(address, until_there=True)
    stream.send(hello(client=1))
    for _, data in mutated_messages(number):
        stream.send(data)
    while (message := stream.hear_any(60)) is not None:
        told.append(message.WhichOneof("content") or "")
    stream.close()


def test_attacker_in_a_clients_place_changes_nothing_in_the_model(
    compose_quick: Compose, tmp_path: Path
):
    images = deal(compose_quick(SMALL), tmp_path / "images")
    told: list[str] = []
    curves, states = [], []
    for attacked in (False, True):
        config = with_edge(
            compose_quick([*SMALL, "trainer.max_steps=40"]),
            min_clients=2,
            start_wait_seconds=0.0,
            step_deadline_seconds=0.5,
            max_refusals=10**6,
        )
        folder = RunFolder(tmp_path / f"attacked_{attacked}")
        config.run_dir = str(folder.path)
        address = config.edge.listen
        clients = start_clients(tmp_path / "clients", address, (0, 2), images, **SCRIPT)
        attacker = threading.Thread(target=attack, args=(address, 2000, told))
        with ended(clients):
            if attacked:
                attacker.start()
            module: Any = train(config, folder, resume=False, deployment=deployment_of(config))
            assert [tally["steps"] for tally in tallies(clients).values()] == [40, 40]
        curves.append(read_curves(folder.metrics)["train/loss"])
        states.append(read(folder.last)["state_dict"])
    attacker.join(60)
    assert told.count("refused") > 1000 and told[-1] == "goodbye"
    assert module.federation.remote_clients.ledger[1].steps == 0
    assert curves[0] == curves[1]
    assert all(torch.equal(states[0][n], t) for n, t in states[1].items() if "_extra" not in n)


LATE = (5, 13, 20)  # of 29; the second with a sync


def without(step: Step, client: int) -> Step:
    """Take a client's rows out of a step."""
    [group], [place] = step.groups, (step.pool == client).nonzero()[0].tolist()
    there = group.places != place
    assert step.view2 is not None
    one, two = (rows_by_group(v, step.groups)[0][there] for v in (step.view1, step.view2))
    groups = (group._replace(places=group.places[there]),)
    return step._replace(view1=one.flatten(0, 1), view2=two.flatten(0, 1), groups=groups)


def test_late_client_is_as_one_that_misses_these_steps_in_a_simulation(
    compose_quick: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    overrides = [
        *SMALL,
        "clients.batch_size=16",
        "clients.num_rounds=1",
        "clients.syncs_per_round=2",
        "trainer.precision=fp64",
    ]
    caplog.set_level("INFO")
    config = with_edge(compose_quick(overrides), precision="fp64", step_deadline_seconds=2.0)
    folder = RunFolder(tmp_path / "networked")
    config.run_dir = str(folder.path)
    images, allowed = deal(config, tmp_path / "images"), tmp_path / "allowed"
    allowed.mkdir()
    address = config.edge.listen
    script = {**SCRIPT, "pause_seconds": 0.1}
    others = start_clients(tmp_path / "clients", address, (0, 2), images, **script)
    late = start_clients(
        tmp_path / "clients", address, (1,), images, late_steps=LATE, late=str(allowed), **script
    )

    def allow() -> None:
        for number, step in enumerate(LATE, 1):
            wait_until(lambda n=number: caplog.text.count("client 1: too late") == n, 120)
            (allowed / str(step)).touch()

    watcher = threading.Thread(target=allow)
    watcher.start()
    with ended(others, late):
        train(config, folder, resume=False, deployment=deployment_of(config))
        watcher.join(60)
        done = tallies(others) | tallies(late)
    num_steps = len(done[0]["learned"])
    assert done[2]["learned"] == done[0]["learned"] == list(range(num_steps))
    missed = set(range(num_steps)) - set(done[1]["learned"])
    assert set(LATE) <= missed and len(missed) < num_steps / 2

    good: Callable[..., Iterator[Step]] = StepLoader._steps

    def steps(self: StepLoader, *rest: Any) -> Iterator[Step]:
        for step in good(self, *rest):
            number = step.round * self.steps_per_round + step.number
            yield without(step, 1) if number in missed else step

    monkeypatch.setattr(StepLoader, "_steps", steps)
    simulation = compose_quick(overrides)
    own = RunFolder(tmp_path / "simulated")
    simulation.run_dir = str(own.path)
    train(simulation, own, resume=False)
    losses = [read_curves(f.metrics)["train/loss"][1] for f in (folder, own)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-8) and len(losses[0]) == num_steps
    states = [read(f.last)["state_dict"] for f in (folder, own)]
    names = [n for n in states[0] if n.startswith(("federation.server", "federation.clients.onl"))]
    assert len(names) > 50
    for name in names:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-9, atol=1e-9)
