"""The parts that processes have of a step are together the step of one process."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mocosfl.data.loader import FederationShape, StepLoader
from mocosfl.data.shard import shard_step
from mocosfl.federation import step_input as step_module
from mocosfl.federation.federation import in_both_orders
from mocosfl.federation.ranks import Ranks
from mocosfl.federation.step_input import Step, rows_by_group
from tests.support.small_partition import PARTITION, SHAPE, view_maker

# Six clients, all in the pool; three batch sizes, dealt so that processes differ in their rows.
UNEQUAL = SHAPE._replace(pool_size=6, batch_sizes=np.array([2, 1, 4, 2, 1, 2]))
SHAPES = {
    "equal": SHAPE,
    "unequal": UNEQUAL,
    "most miss": UNEQUAL._replace(dropout_probability=0.7),
}
LABELS = np.arange(sum(len(PARTITION.client(client)) for client in range(6)))


def steps_of(shape: FederationShape, ranks: Ranks, *, block_images: int = 12) -> list[Step]:
    loader = StepLoader(
        PARTITION, shape, view_maker(), block_images=block_images, labels=LABELS, ranks=ranks
    )
    return list(loader)


def gathered(monkeypatch: pytest.MonkeyPatch, parts: list[Tensor]) -> Any:
    """Let the next exchange between processes have these rows of each."""

    def gather_rows(rows: Tensor, num_rows: tuple[int, ...]) -> Tensor:
        assert tuple(len(part) for part in parts) == num_rows
        most = max(num_rows)
        filled = [torch.cat([p, p.new_full((most - len(p), *p.shape[1:]), -1)]) for p in parts]
        return torch.cat(filled)

    monkeypatch.setattr(step_module, "gather_rows", gather_rows)


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_all_processes_in_order_are_those_of_one(
    shape: str, number: int, monkeypatch: pytest.MonkeyPatch
):
    whole = steps_of(SHAPES[shape], Ranks())
    parts = [steps_of(SHAPES[shape], Ranks(rank, number)) for rank in range(number)]
    for one, *shares in zip(whole, *parts, strict=True):
        for share in shares:
            assert share.everyone is not None
            for name in ("view1", "view2", "labels"):
                gathered(monkeypatch, [getattr(other, name) for other in shares])
                of_all = share.everyone.of_all(getattr(share, name))
                assert torch.equal(of_all, getattr(one, name)), name
            assert share.num_images == one.num_images == len(one.view1)
            assert torch.equal(share.whole_pool, one.pool)
            for group, other in zip(share.all_groups, one.groups, strict=True):
                assert torch.equal(group.places, other.places)
            same = ("round", "number", "new_round", "sync_due")
            assert all(getattr(share, name) == getattr(one, name) for name in same)


def test_rows_of_both_views_come_in_the_same_order(monkeypatch: pytest.MonkeyPatch):
    shape = SHAPES["most miss"]
    parts = [steps_of(shape, Ranks(rank, 2)) for rank in range(2)]
    for one, *shares in zip(steps_of(shape, Ranks()), *parts, strict=True):
        both = [in_both_orders(*two_views(share), share.groups)[0] for share in shares]
        gathered(monkeypatch, both)
        assert shares[0].everyone is not None
        of_all = shares[0].everyone.doubled().of_all(both[0])
        assert torch.equal(of_all, in_both_orders(*two_views(one), one.groups)[0])


def two_views(step: Step) -> tuple[Tensor, Tensor]:
    assert step.view2 is not None
    return step.view1, step.view2


def test_each_row_belongs_to_the_client_in_that_row_of_the_stack():
    holder = {int(i): client for client in range(6) for i in PARTITION.client(client)}
    for rank in range(2):
        for step in steps_of(UNEQUAL, Ranks(rank, 2)):
            assert step.labels is not None  # the label of an image is its number
            pairs = zip(step.groups, rows_by_group(step.labels, step.groups), strict=True)
            for group, images in pairs:
                for client, own in zip(step.pool[group.places].tolist(), images, strict=True):
                    assert {holder[i] for i in own.tolist()} == {client}


def test_process_whose_clients_all_miss_has_a_step_without_rows():
    shares = steps_of(SHAPES["most miss"], Ranks(2, 3), block_images=1)
    empty = [step for step in shares if not step.groups]
    assert empty
    for step in empty:
        assert step.view1.shape == (0, 3, 8, 8)
        assert step.num_images > 0


def test_rich_clients_are_dealt_in_turn():
    groups = [(np.arange(4), 16), (np.arange(4, 10), 1)]
    assert shard_step(groups, Ranks(0, 2)).num_rows == (2 * 16 + 3, 2 * 16 + 3)
