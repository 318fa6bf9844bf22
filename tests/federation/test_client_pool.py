"""Clients' own state through sampled pools, synchronisation, the bank and its checkpoint."""

import io
from copy import deepcopy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from mocosfl.federation.averaging import Averager, mean_of_rows
from mocosfl.federation.client_bank import ClientRows
from mocosfl.federation.client_pool import ClientPool
from mocosfl.federation.folding import stacked_state
from tests.support.small_federation import (
    TAU,
    bank_bytes,
    make_federation,
    make_split,
    make_views,
    one_group,
)

NUM_CLIENTS = 5
KINDS = ("online", "momentum", "sgd")
State = dict[str, dict[str, Tensor]]


class Smashed(NamedTuple):
    query: Tensor
    key: Tensor


def run_heads(pool: ClientPool, views: tuple[Tensor, ...]) -> Smashed:
    """Run two views (P, b, 3, H, W) of the whole pool through its heads."""
    view1, view2 = (view.flatten(0, 1) for view in views)
    groups = one_group(*views[0].shape[:2])
    query = pool.query(view1, groups)
    pool.note_training()
    pool.update_momentum()
    return Smashed(query, pool.key(view2, groups))


class Clients(NamedTuple):
    """The clients and the optimizer of their heads."""

    pool: ClientPool
    optimizer: Optimizer

    def state(self, client: int) -> State:
        """Return a copy of one client's state."""
        return deepcopy(self.pool.client_state(client, self.optimizer))

    def states(self) -> list[State]:
        return [self.state(client) for client in range(self.pool.num_clients)]

    def enter(self, *pool: int) -> None:
        self.pool.enter(torch.tensor(pool), self.optimizer)

    def train(self, seed: int) -> None:
        """Train the pool's heads on random images against a loss that tells clients apart.

        Two steps: at the first the momentum heads still follow heads that are all equal.
        """
        for number in (seed, seed + 100):
            smashed = run_heads(self.pool, make_views(number, self.pool.pool_size, 2))
            direction = torch.linspace(-1, 1, smashed.query.numel(), dtype=torch.float64)
            (smashed.query.flatten() * direction).sum().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


def make_clients(
    *, pool_size: int = 2, cut_layer: int = 1, dtype: torch.dtype = torch.float64, **more: Any
) -> Clients:
    settings = {"num_clients": NUM_CLIENTS, "stateless": False, "frozen": False, **more}
    head = make_split(cut_layer=cut_layer).head.to(dtype)
    pool = ClientPool(head, pool_size=pool_size, momentum=TAU, **settings)
    return Clients(pool, SGD(pool.online.parameters(), 0.1, momentum=0.9))


def assert_same(measured: Any, expected: Any) -> None:
    """Compare bit for bit."""
    torch.testing.assert_close(measured, expected, rtol=0, atol=0)


def differs(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return any(not torch.equal(one[name], other[name]) for name in one)


def mean(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]}


def head_bytes(clients: Clients) -> int:
    return sum(parameter.nbytes for parameter in clients.pool.head.parameters())


def test_all_clients_start_from_the_head_with_empty_sgd_buffers() -> None:
    clients = make_clients()
    start = dict(clients.pool.head.named_parameters())
    for state in clients.states():
        assert_same(state["online"], start)
        assert_same(state["momentum"], start)
        assert all(not buffer.any() for buffer in state["sgd"].values())


def test_sampled_pools_bring_each_client_s_own_state_back() -> None:
    clients = make_clients()
    clients.enter(3, 1)
    clients.train(seed=0)
    left = [clients.state(3), clients.state(1)]
    clients.enter(4, 3)  # 3 stays, in the other row; 1 leaves
    assert_same(clients.state(3), left[0])
    assert_same(clients.state(1), left[1])
    clients.train(seed=1)
    left_of_3 = clients.state(3)
    assert_same(clients.state(1), left[1])
    clients.enter(1, 0)

    assert_same(clients.state(1), left[1])
    assert_same(clients.state(3), left_of_3)
    stacks = stacked_state(clients.pool.online)
    assert_same({name: t[0] for name, t in stacks.items()}, left[1]["online"])
    for kind in KINDS:  # and they were different states
        assert differs(left[0][kind], left[1][kind])
        assert differs(left[0][kind], left_of_3[kind])


def test_training_goes_on_as_if_a_client_had_never_left() -> None:
    clients, twin = make_clients(pool_size=1), make_clients(pool_size=1)
    twin.enter(3)
    twin.train(seed=0)
    twin.train(seed=1)
    clients.enter(3)
    clients.train(seed=0)
    clients.enter(0)
    clients.train(seed=7)
    clients.enter(3)
    clients.train(seed=1)

    assert_same(clients.state(3), twin.state(3))


def test_entering_the_same_pool_changes_nothing() -> None:
    clients = make_clients()
    clients.enter(3, 1)
    clients.train(seed=0)
    before, held = clients.states(), bank_bytes(clients.pool.bank)
    clients.enter(3, 1)

    assert_same(clients.states(), before)
    assert bank_bytes(clients.pool.bank) == held


@pytest.mark.parametrize("align_momentum", [True, False])
def test_sync_gives_the_pool_s_mean_to_all_clients(align_momentum: bool) -> None:
    clients = make_clients()
    clients.enter(0, 2)
    clients.train(seed=0)
    clients.enter(4, 1)
    clients.train(seed=1)
    before = clients.states()
    clients.pool.synchronise(align_momentum)
    after = clients.states()

    online = mean([before[4]["online"], before[1]["online"]])
    momentum = mean([before[4]["momentum"], before[1]["momentum"]])
    for client in range(NUM_CLIENTS):
        torch.testing.assert_close(after[client]["online"], online)
        assert_same(after[client]["online"], after[0]["online"])
        if align_momentum:
            torch.testing.assert_close(after[client]["momentum"], momentum)
        else:
            assert_same(after[client]["momentum"], before[client]["momentum"])
        assert_same(after[client]["sgd"], before[client]["sgd"])
    assert differs(before[0]["online"], after[0]["online"])


def test_what_was_synchronised_comes_along_into_the_next_pool() -> None:
    clients = make_clients()
    clients.enter(4, 1)
    clients.train(seed=1)
    clients.pool.synchronise(False)
    before = clients.states()
    clients.enter(2, 4)

    assert_same(clients.states(), before)


def test_average_head_is_the_pool_s_mean_as_an_ordinary_head() -> None:
    clients = make_clients(cut_layer=2)
    clients.enter(4, 1)
    clients.train(seed=0)
    head = clients.pool.average_head()

    expected = mean([clients.state(4)["online"], clients.state(1)["online"]])
    torch.testing.assert_close(dict(head.named_parameters()), expected)
    assert head(make_views(0, 1, 2)[0][0]).shape == (2, 8, 8, 8)
    assert clients.pool.average_head() is head


def test_query_has_a_gradient_and_key_has_none() -> None:
    smashed = run_heads(make_clients().pool, make_views(0, 2, 3))

    assert smashed.query.shape == smashed.key.shape == (6, 8, 8, 8)
    assert smashed.query.requires_grad
    assert not smashed.key.requires_grad


def test_key_comes_from_the_momentum_head_after_its_update() -> None:
    clients = make_clients()
    clients.enter(3, 1)
    clients.train(seed=0)
    views = make_views(1, 2, 2)
    before = [clients.state(3), clients.state(1)]
    smashed = run_heads(clients.pool, views)
    single = deepcopy(clients.pool.head)
    for place, state in enumerate(before):
        rows = slice(2 * place, 2 * place + 2)
        single.load_state_dict(state["online"])
        torch.testing.assert_close(smashed.query[rows], single(views[0][place]))
        single.load_state_dict(
            {
                name: TAU * slow + (1 - TAU) * state["online"][name]
                for name, slow in state["momentum"].items()
            }
        )
        torch.testing.assert_close(smashed.key[rows], single(views[1][place]))


def test_running_the_heads_changes_none_of_them() -> None:
    clients = make_clients()
    clients.train(seed=0)
    before = clients.states()
    view, groups = make_views(1, 2, 2)[0].flatten(0, 1), one_group(2, 2)
    clients.pool.query(view, groups)
    clients.pool.key(view, groups)

    assert_same(clients.states(), before)


def test_stateless_clients_start_from_the_mean_with_empty_buffers() -> None:
    clients = make_clients(stateless=True)
    clients.enter(3, 1)
    clients.train(seed=0)
    clients.pool.synchronise(False)
    left = [clients.state(3), clients.state(1)]
    clients.enter(1, 0)

    for client in range(NUM_CLIENTS):  # client 1 was there before and starts anew all the same
        state = clients.state(client)
        torch.testing.assert_close(state["online"], left[0]["online"])
        torch.testing.assert_close(state["momentum"], mean([s["momentum"] for s in left]))
        assert all(not buffer.any() for buffer in state["sgd"].values())
    assert any(buffer.any() for buffer in left[1]["sgd"].values())


@pytest.mark.parametrize("num_clients", [5, 500])
def test_bank_of_stateless_clients_does_not_grow_with_their_number(num_clients: int) -> None:
    clients = make_clients(stateless=True, num_clients=num_clients)
    for number, pool in enumerate([(3, 1), (0, 2), (1, 4)]):
        clients.enter(*pool)
        clients.train(seed=number)
        clients.pool.synchronise(False)

    assert bank_bytes(clients.pool.bank) == 3 * head_bytes(clients)


def test_bank_keeps_one_row_of_what_all_clients_have_in_common() -> None:
    clients = make_clients()
    row = head_bytes(clients)
    assert bank_bytes(clients.pool.bank) == 3 * row
    clients.enter(3, 1)
    assert bank_bytes(clients.pool.bank) == 3 * row  # nobody had anything to bring home
    clients.train(seed=0)
    clients.pool.synchronise(True)
    clients.enter(0, 2)
    assert bank_bytes(clients.pool.bank) == (1 + 1 + NUM_CLIENTS) * row  # the SGD buffers
    clients.train(seed=1)
    clients.pool.synchronise(False)
    clients.enter(1, 4)
    assert bank_bytes(clients.pool.bank) == (1 + NUM_CLIENTS + NUM_CLIENTS) * row
    clients.train(seed=2)
    clients.enter(0, 2)
    assert bank_bytes(clients.pool.bank) == 3 * NUM_CLIENTS * row


@pytest.mark.parametrize("stateless", [True, False])
def test_frozen_heads_stay_bit_equal_and_their_bank_small(stateless: bool) -> None:
    # In fp32 the plain mean of seven equal numbers need not be that number.
    clients = make_clients(
        num_clients=9, pool_size=7, frozen=True, stateless=stateless, dtype=torch.float32
    )
    start = deepcopy(dict(clients.pool.head.named_parameters()))
    for number, pool in enumerate([range(7), range(8, 1, -1), range(1, 8)]):
        clients.enter(*pool)
        smashed = run_heads(clients.pool, tuple(view.float() for view in make_views(number, 7, 2)))
        assert not smashed.query.requires_grad
        clients.pool.synchronise(number == 0)

    for state in clients.states():
        assert_same(state["online"], start)
        assert_same(state["momentum"], start)
    assert_same(dict(clients.pool.average_head().named_parameters()), start)
    assert bank_bytes(clients.pool.bank) == 3 * head_bytes(clients)


def saved_and_loaded(state: Any) -> Any:
    """Send a state through a file, as the trainer's checkpoint does."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("stateless", [True, False])
def test_training_from_a_checkpoint_equals_training_without_one(
    sync: bool, stateless: bool
) -> None:
    clients = make_clients(stateless=stateless)
    clients.enter(3, 1)
    clients.train(seed=0)
    clients.enter(0, 3)
    clients.train(seed=1)
    if sync:
        clients.pool.synchronise(False)
    resumed = make_clients(stateless=stateless)
    for part in resumed.pool.parameters():
        nn.init.zeros_(part)
    resumed.pool.load_state_dict(saved_and_loaded(clients.pool.state_dict()))
    resumed.optimizer.load_state_dict(saved_and_loaded(clients.optimizer.state_dict()))
    assert resumed.pool.pool.tolist() == [0, 3]
    assert_same(resumed.states(), clients.states())

    for each in (clients, resumed):
        each.enter(1, 2)
        each.train(seed=2)
        each.enter(3, 4)
        each.train(seed=3)
    assert_same(resumed.states(), clients.states())
    assert bank_bytes(resumed.pool.bank) == bank_bytes(clients.pool.bank)


def test_loaded_clients_share_no_memory_with_those_they_were_loaded_from() -> None:
    clients, other = make_clients(), make_clients()
    clients.enter(3, 1)
    clients.train(seed=0)
    clients.enter(0, 2)  # the bank now has rows of its own
    other.pool.load_state_dict(clients.pool.state_dict())
    before = deepcopy(other.pool.client_state(3, other.optimizer))
    clients.enter(3, 1)
    clients.train(seed=1)
    clients.enter(0, 2)

    assert_same(other.pool.client_state(3, other.optimizer), before)


def test_rows_take_the_precision_of_what_is_written() -> None:
    rows = ClientRows(torch.zeros(2), 3)
    value = torch.full((1, 2), 1 / 3, dtype=torch.float64)
    rows.scatter(torch.tensor([1]), value)

    assert_same(rows.gather(torch.tensor([1])), value)
    assert rows.gather(torch.tensor([0, 2])).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("num_rows", [1, 3, 7, 100])
def test_mean_of_rows_is_the_mean_and_exact_where_all_are_equal(num_rows: int) -> None:
    stacked = torch.randn(num_rows, 1000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean_of_rows(stacked), stacked.mean(0), rtol=1e-5, atol=1e-6)

    equal = stacked[:1].expand(num_rows, -1).clone()
    assert_same(mean_of_rows(equal), stacked[0])


def test_client_that_is_alone_at_its_first_sync_learns_no_scale_from_rounding() -> None:
    averager = Averager("divergence_aware", num_clients=3, strength=0.5, image_counts=None)
    federation = make_federation(make_split(), num_clients=3, pool_size=3, averager=averager)
    pool = federation.clients
    with torch.no_grad():
        for parameter in pool.online.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=parameter.dtype))

    spread = pool.synchronise(False, torch.tensor([1]))

    assert spread is not None and spread.most == 0
    assert averager.scales.tolist() == [0, 0, 0]
