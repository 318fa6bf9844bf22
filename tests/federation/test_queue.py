"""The ring buffer of keys against hand-written contents and a plain list."""

import pytest
import torch
from torch import Tensor

from mocosfl.federation.queue import KeyQueue

SHARED = torch.tensor([0])


def make_queue(num_queues: int = 1, length: int = 5, dim: int = 2) -> KeyQueue:
    """Build queues whose keys are all zero, so that written keys show."""
    queue = KeyQueue(num_queues, length, dim=dim, generator=torch.Generator().manual_seed(0))
    queue.keys.zero_()
    return queue


def numbered(*numbers: float) -> Tensor:
    """Return keys (1, m, 2) that are told apart by their first component."""
    return torch.tensor([[[number, -number] for number in numbers]])


def first_components(queue: KeyQueue, index: int = 0) -> list[float]:
    return queue.keys[index, :, 0].tolist()


def test_queue_starts_with_unit_length_keys_drawn_from_its_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    queues = [
        KeyQueue(3, 4, dim=6, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]

    torch.testing.assert_close(queues[0].keys.norm(dim=2), torch.ones(3, 4))
    assert torch.equal(queues[0].keys, queues[1].keys)
    assert not torch.equal(queues[0].keys, queues[2].keys)
    assert len(queues[0].keys.reshape(12, 6).unique(dim=0)) == 12
    assert queues[0].pointers.tolist() == [0, 0, 0]
    assert torch.equal(torch.get_rng_state(), before)


def test_queue_keeps_newest_keys_when_a_batch_wraps_in_its_middle() -> None:
    queue = make_queue(length=5)

    queue.enqueue(SHARED, numbered(1, 2, 3))
    assert first_components(queue) == [1, 2, 3, 0, 0]
    assert queue.pointers.tolist() == [3]
    queue.enqueue(SHARED, numbered(4, 5, 6))
    assert first_components(queue) == [6, 2, 3, 4, 5]
    assert queue.pointers.tolist() == [1]


@pytest.mark.parametrize("batch", [1, 4, 6, 7])
def test_queue_holds_exactly_the_last_keys_whatever_the_batch_size(batch: int) -> None:
    queue = make_queue(length=7)
    written: list[float] = []
    for step in range(9):
        new = [float(step * batch + i + 1) for i in range(batch)]
        queue.enqueue(SHARED, numbered(*new))
        written += new

        assert queue.keys.shape == (1, 7, 2)
        assert queue.pointers.tolist() == [len(written) % 7]
        assert sorted(first_components(queue)) == sorted(([0.0] * 7 + written)[-7:])


def test_batch_as_long_as_the_queue_replaces_it() -> None:
    queue = make_queue(length=4)
    queue.enqueue(SHARED, numbered(1))
    queue.enqueue(SHARED, numbered(2, 3, 4, 5))

    assert first_components(queue) == [5, 2, 3, 4]
    assert queue.pointers.tolist() == [1]


def test_private_queues_are_written_row_by_row_of_the_pool_each_with_its_own_pointer() -> None:
    queue = make_queue(num_queues=4, length=3)
    queue.enqueue(torch.tensor([2]), numbered(9, 9))
    # The pool is clients 3, 0 and 2, in this order: the first keys are client 3's.
    keys = torch.cat([numbered(30, 31), numbered(10, 11), numbered(20, 21)])
    queue.enqueue(torch.tensor([3, 0, 2]), keys)

    assert [first_components(queue, index) for index in range(4)] == [
        [10, 11, 0],
        [0, 0, 0],
        [21, 9, 20],
        [30, 31, 0],
    ]
    assert queue.pointers.tolist() == [2, 0, 1, 2]


def test_whole_keys_are_written() -> None:
    queue = make_queue(length=3, dim=2)
    queue.enqueue(SHARED, numbered(1, 2))

    assert queue.keys[0].tolist() == [[1, -1], [2, -2], [0, 0]]


def test_negatives_are_those_of_the_asked_queues_and_do_not_change_later() -> None:
    queue = make_queue(num_queues=3, length=2)
    clients = torch.tensor([2, 0])
    queue.enqueue(clients, torch.cat([numbered(5, 6), numbered(1, 2)]))
    negatives = queue.negatives(clients)
    assert negatives[:, :, 0].tolist() == [[5, 6], [1, 2]]

    queue.enqueue(clients, torch.cat([numbered(7, 8), numbered(3, 4)]))
    assert negatives[:, :, 0].tolist() == [[5, 6], [1, 2]]


def test_keys_are_stored_without_graph_in_the_queue_s_own_precision() -> None:
    queue = make_queue(length=3)
    keys = numbered(1.5, 2.5).to(torch.bfloat16).requires_grad_()
    queue.enqueue(SHARED, keys)

    assert queue.keys.dtype == torch.float32
    assert not queue.keys.requires_grad
    assert first_components(queue) == [1.5, 2.5, 0]


def test_checkpoint_holds_keys_and_pointers() -> None:
    queue, other = make_queue(num_queues=2, length=3), make_queue(num_queues=2, length=3)
    queue.enqueue(torch.tensor([1]), numbered(1, 2))
    other.load_state_dict(queue.state_dict())
    for one in (queue, other):
        one.enqueue(torch.tensor([1]), numbered(3, 4))

    assert first_components(other, 1) == first_components(queue, 1) == [4, 2, 3]
