"""Clients with unequal batches, clients that miss steps, and unequal averages, against the loop."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from mocosfl.federation.averaging import Averager
from mocosfl.federation.federation import Federation
from mocosfl.federation.step_input import ClientGroup, Step
from tests.support.reference import ReferenceFederation
from tests.support.reference_comparison import NUM_CLIENTS, compare_states, make_reference
from tests.support.small_federation import SIZE, make_federation, make_sgd, make_split

POOL_SIZE, QUEUE_LENGTH = 4, 19
RICH, POOR = 3, 1  # images a step
# (pool, batch size of each client in it, places that are there, whether a sync follows)
Move = tuple[list[int], list[int], list[int], bool]
EVERYONE = [0, 1, 2, 3]
UNEQUAL: list[Move] = [
    ([4, 0, 2, 1], [RICH, RICH, POOR, POOR], EVERYONE, False),
    ([4, 0, 2, 1], [RICH, RICH, POOR, POOR], EVERYONE, True),
    ([0, 3, 1, 2], [RICH, POOR, POOR, POOR], EVERYONE, False),
    ([4, 3, 2, 1], [RICH, POOR, POOR, POOR], EVERYONE, False),
]
MISSING: list[Move] = [
    ([4, 0, 2, 1], [2] * 4, [1, 2], False),  # before the SGD buffers of the others exist
    ([4, 0, 2, 1], [2] * 4, EVERYONE, False),
    ([4, 0, 2, 1], [2] * 4, [0], True),
    ([0, 3, 1, 2], [2] * 4, [0, 1, 3], False),
    ([0, 3, 1, 2], [2] * 4, [2, 3], True),
    ([4, 3, 2, 1], [2] * 4, [1], False),
]
BOTH: list[Move] = [
    ([4, 0, 2, 1], [RICH, RICH, POOR, POOR], [0, 2, 3], False),
    ([4, 0, 2, 1], [RICH, RICH, POOR, POOR], [2, 3], True),
    ([4, 0, 2, 1], [RICH, RICH, POOR, POOR], [0, 1], False),
]
MODES: dict[str, dict[str, Any]] = {
    "one-sided": {"symmetric": "none"},
    "two-sided": {"symmetric": "server"},
    "both views, private queues, aligned": {
        "symmetric": "full",
        "feature_sharing": False,
        "align_momentum": True,
        "queue_length": 7,
    },
}


def draw_views(seed: int, sizes: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Return each client's two views, (b, 3, H, W) of standard normal pixels."""
    generator = torch.Generator().manual_seed(seed)
    one, two = (
        [
            torch.randn(size, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
            for size in sizes
        ]
        for _ in range(2)
    )
    return one, two


def as_step(move: Move, views: tuple[list[Tensor], list[Tensor]]) -> Step:
    """Return the step of the clients that are there."""
    pool, sizes, there, sync = move
    groups = tuple(
        ClientGroup(torch.tensor([place for place in there if sizes[place] == size]), size)
        for size in sorted({sizes[place] for place in there}, reverse=True)
    )
    view1, view2 = (torch.cat(parts) for parts in views)
    return Step(view1, view2, None, torch.tensor(pool), groups, 0, 0, True, sync)


def train(federation: Federation, optimizer: Optimizer, step: Step) -> float:
    """Do what the LightningModule does for one step, without the sync."""
    places = torch.cat([group.places for group in step.groups])
    federation.clients.enter(step.pool, optimizer)
    with federation.clients.sparing(None if len(places) == POOL_SIZE else places, optimizer):
        optimizer.zero_grad()
        output = federation.run(step)
        output.loss.backward()
        optimizer.step()
    return output.loss.item()


def run_both(
    moves: Sequence[Move],
    settings: dict[str, Any],
    *,
    averager: Averager | None = None,
    weights: Sequence[float] | None = None,
    strength: float | None = None,
) -> tuple[Federation, Optimizer, ReferenceFederation]:
    """Run all moves through the folded federation and the loop; every loss must agree."""
    federation = make_federation(
        make_split(cut_layer=2),
        num_clients=NUM_CLIENTS,
        pool_size=POOL_SIZE,
        averager=averager,
        **{"queue_length": QUEUE_LENGTH, **settings},
    )
    reference = make_reference(federation, symmetric=settings["symmetric"])
    optimizer = make_sgd(federation)
    for number, move in enumerate(moves):
        pool, sizes, there, sync = move
        views = draw_views(number, [sizes[place] for place in there])
        present = [pool[place] for place in there]
        loss = train(federation, optimizer, as_step(move, views))
        assert loss == pytest.approx(reference.step(present, *views).loss, rel=1e-10)
        if sync:
            everyone = len(there) == POOL_SIZE
            spread = federation.synchronise(None if everyone else torch.tensor(there))
            own = None if weights is None else [weights[client] for client in present]
            distances = torch.tensor(reference.sync(present, weights=own, strength=strength))
            assert spread is not None
            assert spread.mean.item() == pytest.approx(distances.mean().item())
            assert spread.std.item() == pytest.approx(distances.std(correction=0).item())
            assert spread.least.item() == pytest.approx(distances.min().item())
            assert spread.most.item() == pytest.approx(distances.max().item())
    return federation, optimizer, reference


@pytest.mark.parametrize("settings", MODES.values(), ids=MODES.keys())
@pytest.mark.parametrize("moves", [UNEQUAL, MISSING, BOTH], ids=["unequal", "missing", "both"])
def test_unequal_batches_and_missing_clients_equal_the_plain_loop(
    moves: list[Move], settings: dict[str, Any]
) -> None:
    compare_states(*run_both(moves, settings))


def make_averager(kind: str, *, strength: float = 0.5) -> Averager:
    counts = torch.tensor([7, 1, 2, 9, 4])
    return Averager(kind, num_clients=NUM_CLIENTS, strength=strength, image_counts=counts)


@pytest.mark.parametrize("moves", [UNEQUAL, MISSING], ids=["all there", "some missing"])
def test_average_by_images_counts_each_client_as_its_images(moves: list[Move]) -> None:
    averager = make_averager("by_images")
    compare_states(*run_both(moves, MODES["two-sided"], averager=averager, weights=[7, 1, 2, 9, 4]))


AWARE: list[Move] = [
    ([4, 0, 2, 1], [2] * 4, EVERYONE, False),
    ([4, 0, 2, 1], [2] * 4, EVERYONE, True),
    ([4, 0, 2, 1], [2] * 4, EVERYONE, True),  # its heads still differ when it leaves
    ([0, 3, 1, 2], [2] * 4, EVERYONE, False),
    ([0, 3, 1, 2], [2] * 4, EVERYONE, True),  # the first sync of client 3
    ([3, 4, 1, 2], [2] * 4, EVERYONE, False),
    # Client 2 is not there: it takes the mean as those outside the pool do.
    ([3, 4, 1, 2], [2] * 4, [0, 2], True),
]
FIRST_SYNC_MISSED: list[Move] = [
    ([4, 0, 2, 1], [2] * 4, EVERYONE, False),
    ([4, 0, 2, 1], [2] * 4, [0, 1, 3], True),
    ([4, 0, 2, 1], [2] * 4, EVERYONE, True),
]


def test_divergence_aware_averaging_equals_the_plain_loop_from_pool_to_pool() -> None:
    federation, optimizer, reference = run_both(
        AWARE,
        MODES["both views, private queues, aligned"],
        averager=make_averager("divergence_aware", strength=0.3),
        strength=0.3,
    )
    compare_states(federation, optimizer, reference)
    scales = federation.clients.averager.scales
    assert scales.tolist() == pytest.approx([reference.scales[client] for client in range(5)])


def test_client_that_misses_its_first_sync_gets_its_scale_at_the_next() -> None:
    averager = make_averager("divergence_aware")
    federation, optimizer, reference = run_both(
        FIRST_SYNC_MISSED, MODES["two-sided"], averager=averager, strength=0.5
    )
    compare_states(federation, optimizer, reference)
    assert averager.scales[2] == pytest.approx(reference.scales[2])


def test_scales_of_divergence_aware_averaging_are_in_the_checkpoint() -> None:
    averager = make_averager("divergence_aware")
    federation, _, _ = run_both(AWARE[:2], MODES["one-sided"], averager=averager, strength=0.5)
    state = federation.state_dict()
    scales = state["clients.averager.scales"]
    assert (scales > 0).tolist() == [True, True, True, False, True]
    assert "clients.averager.image_counts" not in state
