"""Rounds without traffic: which mode follows, what each does, and that a resume forgets nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mocosfl.federation.federation import Federation
from mocosfl.federation.saving import CommunicationSaving, SmashedStore, Traffic, next_traffic
from mocosfl.federation.server import SmashedStep
from mocosfl.federation.step_input import Step
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves
from mocosfl.training.callbacks.step_log import StepLog
from mocosfl.training.run import train
from tests.support.checkpoints import assert_same_results, break_off, read
from tests.support.configurations import Compose
from tests.support.small_federation import (
    make_federation,
    make_sgd,
    make_split,
    make_step,
    make_views,
)

A, B, C = Traffic.all, Traffic.uploads, Traffic.none


@pytest.mark.parametrize(
    ("now", "fall", "expected"),
    [
        (A, 0.5, A),
        (A, 0.09, B),
        (A, -1.0, B),
        (B, 0.09, C),
        (B, 0.1, A),
        (C, 0.0, C),
        (C, 0.2, A),
    ],
)
def test_next_mode_follows_from_the_fall_of_the_loss(now: Traffic, fall: float, expected: Traffic):
    assert next_traffic(now, fall=fall, threshold=0.1) is expected


def make_saving(folder: Path, **more: Any) -> CommunicationSaving:
    settings: dict[str, Any] = {"warmup_rounds": 2, "loss_threshold": 0.1, "seed": 0, **more}
    return CommunicationSaving(SmashedStore(folder), **settings)


def step_of(number: int, *, round_index: int = 0, pool: Any = (2, 0)) -> Step:
    """Return a step of two clients with two images each."""
    views = make_views(10 * round_index + number, 2, 2)
    return make_step(views, pool=pool)._replace(round=round_index, number=number)


def force(saving: CommunicationSaving, traffic: Traffic, round_index: int) -> None:
    """Start a round in a mode whatever the loss was."""
    fall = 0.0 if traffic is not A else 1.0
    saving.traffic = {A: A, B: A, C: B}[traffic]
    saving._previous_loss, saving._loss_sum, saving._num_steps = 1.0, 1.0 - fall, 1
    saving.start_round(max(round_index, 2))
    assert saving.traffic is traffic


def parameters_of(federation: Federation) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in federation.clients.named_parameters()}


def train_round(
    saving: CommunicationSaving, federation: Federation, optimizer: Any, round_index: int
) -> list[SmashedStep]:
    """Run three steps and return what the server saw."""
    seen: list[SmashedStep] = []
    for number in range(3):
        optimizer.zero_grad()
        step = step_of(number, round_index=round_index)
        smashed = saving.smash(federation, step, 3)
        seen.append(smashed)
        loss = federation.learn(smashed).loss
        saving.note(loss)
        loss.backward()
        optimizer.step()
    return seen


def test_heads_stand_still_and_the_server_learns_while_only_uploads_travel(tmp_path: Path):
    federation = make_federation(make_split(), num_clients=3, pool_size=2)
    optimizer, saving = make_sgd(federation), make_saving(tmp_path)
    train_round(saving, federation, optimizer, 0)  # so that SGD has momentum to carry on with
    heads = parameters_of(federation)
    trunk = [p.clone() for p in federation.server.trunk.parameters()]
    force(saving, B, 2)
    seen = train_round(saving, federation, optimizer, 2)
    assert not any(step.query.requires_grad for step in seen)
    torch.testing.assert_close(parameters_of(federation), heads, rtol=0, atol=0)
    moved = zip(trunk, federation.server.trunk.parameters(), strict=True)
    assert all(not torch.equal(before, after) for before, after in moved)


def test_replay_gives_the_server_each_stored_step_once_in_another_order(tmp_path: Path):
    federation = make_federation(make_split(), num_clients=3, pool_size=2, feature_sharing=False)
    optimizer, saving = make_sgd(federation), make_saving(tmp_path)
    force(saving, B, 2)
    sent = train_round(saving, federation, optimizer, 2)
    orders = []
    for round_index in range(3, 9):
        force(saving, C, round_index)
        replayed = train_round(saving, federation, optimizer, round_index)
        order = [
            next(i for i, s in enumerate(sent) if torch.equal(s.query, r.query)) for r in replayed
        ]
        for place, step in zip(order, replayed, strict=True):
            assert step.key is not None
            assert torch.equal(step.key, sent[place].key)  # type: ignore[arg-type]
            assert step.pool.tolist() == [2, 0]
            assert step.groups[0].batch_size == 2
        assert sorted(order) == [0, 1, 2]
        orders.append(order)
    assert len({tuple(order) for order in orders}) > 1


def test_warm_up_rounds_keep_all_traffic_and_rounds_are_counted_by_mode(tmp_path: Path):
    saving = make_saving(tmp_path, warmup_rounds=4)
    modes = []
    for round_index, loss in enumerate([9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 8.0, 8.0]):
        saving.start_round(round_index)
        modes.append(saving.traffic.value)
        saving._loss_sum, saving._num_steps = torch.tensor(2 * loss), 2
    assert modes == ["A", "A", "A", "A", "B", "C", "C", "A"]
    assert saving.num_rounds == {"A": 5, "B": 1, "C": 2}


def test_stored_round_of_the_last_checkpoint_outlives_the_next_one(tmp_path: Path):
    saving = make_saving(tmp_path)
    force(saving, B, 2)
    saving.state_dict()  # a checkpoint speaks of round 2
    force(saving, B, 5)
    force(saving, B, 7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round_000002", "round_000007"]
    saving.state_dict()
    force(saving, B, 9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round_000007", "round_000009"]


SAVING = [
    "saving=by_loss",
    "saving.warmup_rounds=2",
    "saving.loss_threshold=100",  # no loss falls by so much: A A B C C
    "clients.num_rounds=5",
    "trainer.max_steps=35",
]


@pytest.mark.slow
def test_run_with_saved_rounds_broken_off_ends_as_if_it_never_was(
    compose_quick: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = compose_quick(SAVING)
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    train(config, whole, resume=False)
    assert read_curves(whole.metrics)["train/traffic"][1] == [0.0] * 14 + [1.0] * 7 + [2.0] * 14
    # In the middle of B, of the first C and of the second, each a step after a checkpoint.
    for step in (17, 25, 31):
        with monkeypatch.context() as patch:
            break_off(patch, step, behind=StepLog)
            with pytest.raises(SystemExit, match="broken off"):
                train(config, broken, resume=step > 17)
    train(config, broken, resume=True)
    assert read(broken.last)["saving"]["num_rounds"] == {"A": 2, "B": 1, "C": 2}
    assert_same_results(broken, whole)


def test_run_whose_smashed_data_are_gone_says_so_when_it_goes_on(
    compose_quick: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config, folder = compose_quick(SAVING), RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        break_off(patch, 25, behind=StepLog)
        with pytest.raises(SystemExit):
            train(config, folder, resume=False)
    next(folder.smashed.glob("round_*/step_000003.pt")).unlink()
    with pytest.raises(FileNotFoundError, match=r"round 2, .*step_000003\.pt is missing; put"):
        train(config, folder, resume=True)


def test_smashed_data_are_deleted_when_the_run_is_done(compose_quick: Compose, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    train(compose_quick(SAVING), folder, resume=False)
    assert not folder.smashed.exists()


def test_heads_are_not_averaged_in_saved_rounds(compose_quick: Compose, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    train(compose_quick(SAVING), folder, resume=False)
    steps, _ = read_curves(folder.metrics)["sync/divergence_mean"]
    assert max(steps) == 13  # the last step of the second round
