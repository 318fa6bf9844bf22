"""What processes tell each other, and the pool that they share, in two real processes."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import SGD, Optimizer

from mocosfl.federation.averaging import Averager
from mocosfl.federation.client_pool import ClientPool
from mocosfl.federation.folding import stacked_state
from mocosfl.federation.ranks import ALONE, Ranks
from mocosfl.training.processes.strategy import free_port
from mocosfl.training.processes.workers import RankJob, further_processes
from tests.support.small_federation import TAU, make_split

NUM_CLIENTS, POOL = 7, torch.tensor([4, 0, 6, 2, 5])


def test_process_alone_is_given_back_what_it_gave():
    rows, value = torch.rand(3, 2), object()
    assert ALONE.of_pool(rows, 3) is rows
    assert ALONE.sum([rows])[0] is rows
    assert ALONE.of_first([rows])[0] is rows
    assert ALONE.decided_by_first(value) is value
    assert ALONE.all_agree(True)
    assert not ALONE.all_agree(False)


def test_places_of_a_pool_are_dealt_in_turn():
    places = [list(range(7))[Ranks(rank, 3).own(7)] for rank in range(3)]
    assert places == [[0, 3, 6], [1, 4], [2, 5]]
    assert [Ranks(rank, 3).num_own(7) for rank in range(3)] == [3, 2, 2]


@pytest.mark.slow
def test_two_processes_hold_one_pool():
    port = free_port()
    with further_processes(hold, [RankJob({}, Path(), None, 1, port)]):
        hold(RankJob({}, Path(), None, 0, port), lambda: None)


def hold(job: RankJob, ready: Callable[[], None]) -> None:
    """Compare this process's part of everything with what one process would have."""
    ready()
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{job.port}",
        rank=job.rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    ranks = Ranks(job.rank, 2)
    check_exchanges(ranks)
    for kind in ("mean", "by_images", "divergence_aware"):
        check_syncs(ranks, kind)
    check_equal_heads_stay(ranks)
    dist.destroy_process_group()


def check_exchanges(ranks: Ranks) -> None:
    numbers = torch.arange(15.0).view(5, 3)
    own = numbers[ranks.own(5)]
    assert torch.equal(ranks.of_pool(own, 5), numbers)
    for place in range(5):
        assert torch.equal(ranks.at_place(own, place), numbers[place])
    mine = [torch.full((2, 2), 1.0 + ranks.rank), torch.tensor(10.0 * ranks.rank)]
    assert [t.tolist() for t in ranks.sum(mine)] == [[[3.0, 3.0], [3.0, 3.0]], 10.0]
    assert [t.tolist() for t in ranks.of_first(mine)] == [[[1.0, 1.0], [1.0, 1.0]], 0.0]
    assert ranks.decided_by_first(f"rank {ranks.rank}") == "rank 0"
    assert ranks.all_agree(True)
    assert not ranks.all_agree(ranks.rank == 0)


def make_pool(ranks: Ranks, kind: str = "mean") -> tuple[ClientPool, Optimizer]:
    counts = torch.arange(1, NUM_CLIENTS + 1)
    averager = Averager(kind, num_clients=NUM_CLIENTS, strength=0.4, image_counts=counts)
    pool = ClientPool(
        make_split().head,
        num_clients=NUM_CLIENTS,
        pool_size=len(POOL),
        momentum=TAU,
        stateless=False,
        frozen=False,
        averager=averager,
        ranks=ranks,
    )
    optimizer = SGD(pool.online.parameters(), lr=0.1, momentum=0.9)
    pool.enter(POOL, optimizer)
    return pool, optimizer


def train(pool: ClientPool, optimizer: Optimizer, seed: int) -> None:
    """Step with random gradients, the same for a client wherever it is."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in pool.online.parameters():
        shape = (len(POOL), *parameter.shape[1:])
        every = torch.randn(shape, generator=generator, dtype=parameter.dtype)
        parameter.grad = every[pool.ranks.own(len(POOL))]
    optimizer.step()
    for momentum, online in zip(pool.momentum.parameters(), pool.online.parameters(), strict=True):
        momentum.data.lerp_(online.data, 0.5)
    pool._online_changed = pool._momentum_changed = True


def check_syncs(ranks: Ranks, kind: str) -> None:
    (shared, own), (whole, its) = make_pool(ranks, kind), make_pool(ALONE, kind)
    there = [None, torch.tensor([0, 2, 3]), torch.tensor([1, 3])]
    for seed, places in enumerate(there):
        for pool, optimizer in ((shared, own), (whole, its)):
            train(pool, optimizer, seed)
        apart, expected = shared.synchronise(True, places), whole.synchronise(True, places)
        torch.testing.assert_close(apart, expected)
        for pool, optimizer in ((shared, own), (whole, its)):
            train(pool, optimizer, 10 + seed)
            pool.enter((POOL + seed) % NUM_CLIENTS, optimizer)
        for client in range(NUM_CLIENTS):
            state, alone = shared.client_state(client, own), whole.client_state(client, its)
            torch.testing.assert_close(state, alone)
        torch.testing.assert_close(head_of(shared), head_of(whole))
        torch.testing.assert_close(shared.averager.scales, whole.averager.scales)


def head_of(pool: ClientPool) -> dict[str, Tensor]:
    return dict(pool.average_head().named_parameters())


def check_equal_heads_stay(ranks: Ranks) -> None:
    """Equal heads are the same to the last bit after a sync, for any weights."""
    for kind in ("mean", "by_images"):
        pool, _ = make_pool(ranks, kind)
        before = {name: tensor.clone() for name, tensor in stacked_state(pool.online).items()}
        pool.synchronise(True)
        for name, tensor in stacked_state(pool.online).items():
            assert torch.equal(tensor, before[name]), name
