"""Round plans: steps, synchronisations, pools and the order of images."""

import numpy as np
import pytest

from mocosfl.data.partition import Partition
from mocosfl.data.round_plan import (
    client_orders,
    draw_pool,
    draw_present,
    plan_round,
    steps_per_round,
    sync_steps,
)


def partition_of(*sizes: int) -> Partition:
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    order = np.random.default_rng(0).permutation(sum(sizes))
    return Partition(order, offsets)


@pytest.mark.parametrize(
    ("counts", "batch_size", "steps"),
    [
        ([50, 50], 1, 50),
        ([50, 50], 20, 2),
        ([50, 50], 64, 1),
        ([10, 20, 31], 2, 10),  # the mean is 20.3
        ([1, 1], 1, 1),
    ],
)
def test_a_round_is_one_pass_over_the_mean_client(counts: list[int], batch_size: int, steps: int):
    assert steps_per_round(np.array(counts), batch_size) == steps


@pytest.mark.parametrize(
    ("num_steps", "syncs", "due"),
    [
        (6, 1, [5]),
        (6, 2, [2, 5]),
        (6, 3, [1, 3, 5]),
        (7, 3, [1, 3, 5, 6]),  # a period of 2, and after the last
        (10, 4, [1, 3, 5, 7, 9]),
        (3, 3, [0, 1, 2]),
        (3, 10, [0, 1, 2]),
        (1, 1, [0]),
    ],
)
def test_syncs_are_due_by_the_published_rule(num_steps: int, syncs: int, due: list[int]):
    assert np.flatnonzero(sync_steps(num_steps, syncs)).tolist() == due


def test_pool_is_drawn_without_replacement_and_anew_each_round():
    pools = [draw_pool(1000, 100, seed=1, round_index=index) for index in range(200)]
    assert all(len(set(pool.tolist())) == 100 for pool in pools)
    assert not np.array_equal(pools[0], pools[1])
    np.testing.assert_array_equal(pools[5], draw_pool(1000, 100, seed=1, round_index=5))
    assert not np.array_equal(pools[5], draw_pool(1000, 100, seed=2, round_index=5))
    times = np.bincount(np.concatenate(pools), minlength=1000)  # 20 on average, deviation 4.2
    assert times.min() > 3
    assert times.max() < 40


def test_pool_of_everyone_keeps_the_order_of_the_clients():
    assert draw_pool(5, 5, seed=1, round_index=3).tolist() == [0, 1, 2, 3, 4]


def test_a_client_passes_over_its_images_before_any_repeats():
    partition = partition_of(4, 9)
    orders = client_orders(partition, np.array([1, 0]), seed=1, round_index=0, num_images=18)
    for row, client, size in ((0, 1, 9), (1, 0, 4)):
        for start in range(0, 18 - size + 1, size):
            seen = np.sort(orders[row, start : start + size])
            np.testing.assert_array_equal(seen, np.sort(partition.client(client)))
    assert not np.array_equal(orders[0, :9], orders[0, 9:])  # reshuffled


def test_a_clients_order_depends_on_neither_pool_nor_length():
    partition = partition_of(5, 6, 7, 3)
    arguments = {"seed": 1, "round_index": 2}
    alone = client_orders(partition, np.array([2]), num_images=20, **arguments)
    among = client_orders(partition, np.array([3, 2, 0]), num_images=9, **arguments)
    np.testing.assert_array_equal(alone[0, :9], among[1])
    next_round = client_orders(partition, np.array([2]), num_images=20, seed=1, round_index=3)
    assert not np.array_equal(alone, next_round)


def test_plan_gives_each_client_of_the_pool_its_own_images():
    partition = partition_of(*[12] * 10)
    plan = plan_round(
        partition, 4, seed=7, pool_size=3, batch_sizes=4, syncs_per_round=1, num_steps=3
    )
    (group,) = plan.groups
    assert plan.round == 4
    assert group.images.shape == (3, 3, 4)  # steps, clients, images
    assert group.images.dtype == np.int64
    assert plan.sync_due.tolist() == [False, False, True]
    np.testing.assert_array_equal(plan.pool, draw_pool(10, 3, seed=7, round_index=4))
    for row, client in enumerate(plan.pool):
        held = np.sort(group.images[:, row].ravel())
        np.testing.assert_array_equal(held, np.sort(partition.client(client)))


def test_plan_is_a_function_of_seed_and_round():
    partition = partition_of(*[12] * 10)
    settings = {"pool_size": 3, "batch_sizes": 1, "syncs_per_round": 2, "num_steps": 12}
    plan = plan_round(partition, 4, seed=7, **settings)
    again = plan_round(partition, 4, seed=7, **settings)
    for first, second in zip(plan._replace(groups=()), again._replace(groups=()), strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(plan.groups[0].images, again.groups[0].images)
    other = plan_round(partition, 4, seed=8, **settings)
    assert not np.array_equal(plan.groups[0].images, other.groups[0].images)


def test_a_client_with_fewer_images_than_a_batch_repeats_them():
    plan = plan_round(
        partition_of(1, 3), 0, seed=7, pool_size=2, batch_sizes=8, syncs_per_round=1, num_steps=1
    )
    images = plan.groups[0].images
    assert images.shape == (1, 2, 8)
    assert len(np.unique(images[:, 0])) == 1
    assert len(np.unique(images[:, 1])) == 3


def test_rich_and_poor_clients_pass_over_their_images_in_the_same_steps():
    # The published setting: 20 of 100 clients hold 80 % of 50,000 images, batch 16 and 1.
    counts, batches = np.repeat([2000, 125], [20, 80]), np.repeat([16, 1], [20, 80])
    assert steps_per_round(counts, batches) == 125


def test_local_epochs_lengthen_a_round_by_whole_passes():
    assert steps_per_round(np.array([7, 8]), 2, local_epochs=3) == 9  # 3 steps a pass of 7.5


def test_pool_of_unequal_clients_is_in_groups_with_the_largest_batches_first():
    partition, batches = partition_of(*[12] * 10), np.array([4, 4, 4, *[1] * 7])
    pools = []
    for round_index in range(20):
        plan = plan_round(
            partition,
            round_index,
            seed=7,
            pool_size=5,
            batch_sizes=batches,
            syncs_per_round=1,
            num_steps=6,
        )
        assert batches[plan.pool].tolist() == sorted(batches[plan.pool].tolist(), reverse=True)
        assert np.concatenate([group.places for group in plan.groups]).tolist() == [0, 1, 2, 3, 4]
        for places, images in plan.groups:
            assert images.shape == (6, len(places), batches[plan.pool[places[0]]])
            for column, place in enumerate(places):
                held = partition.client(int(plan.pool[place]))
                assert set(images[:, column].ravel()) <= set(held)
        pools.append(plan.pool.tolist())
    assert len({len(set(pool) & {0, 1, 2}) for pool in pools}) > 1  # drawn without regard to b


def test_clients_miss_steps_at_the_rate_asked_for_and_each_step_has_one():
    present = draw_present(4000, 5, 0.3, seed=1, round_index=2)
    assert present.shape == (4000, 5)
    assert present.mean() == pytest.approx(0.7, abs=0.02)
    assert present.any(axis=1).all()
    assert np.array_equal(present, draw_present(4000, 5, 0.3, seed=1, round_index=2))
    assert not np.array_equal(present, draw_present(4000, 5, 0.3, seed=1, round_index=3))
    rarely = draw_present(1000, 2, 0.99, seed=1, round_index=0)
    assert rarely.any(axis=1).all()
    assert 0 < rarely.mean() < 0.6
    assert draw_present(10, 3, 0.0, seed=1, round_index=0).all()
