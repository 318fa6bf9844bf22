"""The step loader: each step is a function of (seed, round, step), wherever it starts."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mocosfl.data.loader import FederationShape, StepLoader
from mocosfl.data.round_plan import plan_round
from mocosfl.data.view_maker import ViewMaker
from mocosfl.federation.step_input import Step
from tests.support.small_partition import NUMBERED, PARTITION, PATTERNS, SHAPE, view_maker
from tests.support.view_settings import IDENTITY, RANDOM

NUM_STEPS = 12


def make_loader(
    maker: ViewMaker | None = None, *, block_images: int = 12, shape: FederationShape = SHAPE
) -> StepLoader:
    return StepLoader(PARTITION, shape, maker or view_maker(), block_images=block_images)


def assert_same(steps: Sequence[Step], expected: Sequence[Step]) -> None:
    assert len(steps) == len(expected)
    for step, other in zip(steps, expected, strict=True):
        for value, reference in zip(step, other, strict=True):
            if isinstance(reference, Tensor):
                assert torch.equal(value, reference)
            elif value is not step.groups:
                assert value == reference
        for group, other_group in zip(step.groups, other.groups, strict=True):
            assert group.places.tolist() == other_group.places.tolist()
            assert group.batch_size == other_group.batch_size


def test_loader_is_as_long_as_the_run_and_ends():
    loader = make_loader()
    assert len(loader) == NUM_STEPS
    assert [step.round for step in loader] == [0] * 4 + [1] * 4 + [2] * 4
    assert list(loader) == []


def test_each_row_is_an_image_of_its_client_as_the_round_plan_says():
    loader = make_loader(view_maker(NUMBERED, IDENTITY))
    for number, step in enumerate(loader):
        plan = plan_round(
            PARTITION,
            number // 4,
            seed=5,
            pool_size=3,
            batch_sizes=2,
            syncs_per_round=2,
            num_steps=4,
        )
        for view in (step.view1, step.view2):
            assert view.shape == (6, 3, 8, 8)
            images = (view * 255).round().long()
            assert torch.equal(images, images[..., :1, :1, :1].expand_as(images))
            images = images[:, 0, 0, 0].unflatten(0, (3, 2))  # (P, b)
            assert images.tolist() == plan.groups[0].images[number % 4].tolist()
        assert step.pool.tolist() == plan.pool.tolist()
        for client, own in zip(step.pool.tolist(), images.tolist(), strict=True):
            assert set(own) <= set(PARTITION.client(client).tolist())


def test_rows_are_those_of_the_clients_that_are_there_group_by_group():
    batches = np.array([3, 3, 1, 1, 1, 1])
    shape = SHAPE._replace(batch_sizes=batches, dropout_probability=0.4, pool_size=4)
    sizes = set()
    for step in make_loader(view_maker(NUMBERED, IDENTITY), shape=shape):
        images = (step.view1[:, 0, 0, 0] * 255).round().long().tolist()
        places = [p for group in step.groups for p in group.places.tolist()]
        owners = [
            client
            for group in step.groups
            for client in step.pool[group.places].tolist()
            for _ in range(group.batch_size)
        ]
        assert len(images) == len(owners) == sum(group.num_rows for group in step.groups)
        for image, client in zip(images, owners, strict=True):
            assert image in PARTITION.client(client)
        assert places == sorted(set(places))
        assert all((batches[step.pool[g.places]] == g.batch_size).all() for g in step.groups)
        sizes.add(len(places))
    assert len(sizes) > 1  # somebody missed a step


def test_unequal_and_missing_clients_resume_at_any_step():
    shape = SHAPE._replace(batch_sizes=np.array([3, 3, 1, 1, 1, 1]), dropout_probability=0.4)
    whole = list(make_loader(shape=shape))
    for start in (0, 3, 7):
        resumed = make_loader(block_images=5, shape=shape)
        resumed.load_state_dict({"next_step": start})
        assert_same(list(resumed), whole[start:])


def test_each_block_is_announced_before_the_one_before_it_trains():
    events: list[str] = []

    class Announced(ViewMaker):
        def prefetch(self, indices: Any, uniforms: Tensor) -> None:
            events.append(f"prefetch {indices.tolist()}")

        def views(self, indices: Any, uniforms: Tensor) -> list[Tensor]:
            events.append(f"views {indices.tolist()}")
            return super().views(indices, uniforms)

    ones = {"mean": [0.5] * 3, "std": [1.0] * 3, "device": torch.device("cpu")}
    for step in make_loader(Announced(PATTERNS, RANDOM, **ones)):
        events.append(f"step {step.round}.{step.number}")
    views = [event.removeprefix("views ") for event in events if event.startswith("views")]
    assert len(views) == 6  # two steps each
    for number, indices in enumerate(views[1:], 1):
        announced = events.index(f"prefetch {indices}")
        assert events.index(f"views {views[number - 1]}") < announced
        assert events[announced + 1].startswith("step")


def test_flags_mark_the_start_of_a_round_and_the_syncs():
    steps = list(make_loader())
    assert [step.new_round for step in steps] == [True, False, False, False] * 3
    assert [step.sync_due for step in steps] == [False, True, False, True] * 3
    pools = [set(step.pool.tolist()) for step in steps]
    assert pools[:4] == [pools[0]] * 4
    assert len({frozenset(pool) for pool in pools}) > 1


@pytest.mark.parametrize("start", range(NUM_STEPS + 1))
def test_going_on_from_any_step_gives_the_same_bits(start: int):
    stopped, resumed = make_loader(), make_loader(block_images=18)
    assert len(list(islice(stopped, start))) == start
    state = stopped.state_dict()
    assert state == {"next_step": start}
    resumed.load_state_dict(state)
    assert_same(list(resumed), list(make_loader())[start:])


@pytest.mark.parametrize("block_images", [1, 6, 13, 24, 10_000])
def test_steps_do_not_depend_on_the_size_of_the_blocks(block_images: int):
    assert_same(list(make_loader(block_images=block_images)), list(make_loader()))


def test_blocks_hold_whole_steps_of_one_round_and_at_most_their_size():
    made: list[int] = []

    class Counting(ViewMaker):
        def views(self, indices: Any, uniforms: Tensor) -> list[Tensor]:
            made.append(len(indices))
            return super().views(indices, uniforms)

    ones = {"mean": [0.5] * 3, "std": [1.0] * 3, "device": torch.device("cpu")}
    list(make_loader(Counting(PATTERNS, RANDOM, **ones), block_images=20))  # 6 rows a step
    assert made == [18, 6] * 3


def test_views_of_one_image_differ_in_each_row_step_and_round():
    first, *later = islice(make_loader(view_maker(np.repeat(PATTERNS[:1], 48, 0))), 5)
    assert not torch.equal(first.view1, first.view2)
    assert not any(torch.equal(first.view1, step.view1) for step in later)  # the last of round 1
    assert not torch.equal(first.view1[0], first.view1[1])


def test_another_seed_gives_other_views_and_pools():
    other = list(make_loader(shape=SHAPE._replace(seed=6)))
    same = list(make_loader())
    assert [step.pool.tolist() for step in other] != [step.pool.tolist() for step in same]
    assert not any(torch.equal(a.view1, b.view1) for a, b in zip(other, same, strict=True))


def test_loader_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    next(iter(make_loader()))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


def test_images_are_read_from_front_to_back_and_returned_in_the_order_asked_for():
    read: list[np.ndarray] = []

    class MemoryMap:
        shape = NUMBERED.shape

        def __getitem__(self, indices: np.ndarray) -> np.ndarray:
            read.append(indices)
            return NUMBERED[indices]

    wanted = np.array([30, 2, 2, 47, 0, 11])
    images = view_maker(MemoryMap(), IDENTITY).read(wanted)
    assert [indices.tolist() for indices in read] == [[0, 2, 2, 11, 30, 47]]
    assert images.dtype == torch.uint8
    assert images.shape == (6, 3, 8, 8)
    assert images[:, 0, 0, 0].tolist() == wanted.tolist()


def test_views_are_normalised_by_channel():
    maker = ViewMaker(
        PATTERNS, IDENTITY, mean=[0.1, 0.2, 0.3], std=[0.5, 1.0, 2.0], device=torch.device("cpu")
    )
    step = next(iter(make_loader(maker)))
    plan = plan_round(
        PARTITION, 0, seed=5, pool_size=3, batch_sizes=2, syncs_per_round=2, num_steps=4
    )
    indices = plan.groups[0].images[0].ravel()
    pixels = torch.from_numpy(PATTERNS[indices]) / 255  # (B, H, W, 3)
    expected = (pixels - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 1.0, 2.0])
    torch.testing.assert_close(step.view1, expected.permute(0, 3, 1, 2), atol=1e-5, rtol=0)


def test_first_indices_are_the_images_of_the_first_round():
    loader = make_loader(view_maker(NUMBERED, IDENTITY))
    for step, indices in zip(loader, loader.first_indices(), strict=False):
        assert (step.view1[..., 0, 0, 0] * 255).round().flatten().tolist() == indices.tolist()


def test_overfitting_shows_the_same_images_and_views_over_and_over():
    ordinary = list(make_loader())
    steps = list(make_loader(shape=SHAPE._replace(overfit_steps=2)))
    assert len(steps) == len(ordinary) == NUM_STEPS
    for index, step in enumerate(steps):
        seen = ordinary[index % 4 % 2]  # rounds of 4 steps; the first two of the first round
        assert torch.equal(step.view1, seen.view1)
        assert step.view2 is not None and seen.view2 is not None
        assert torch.equal(step.view2, seen.view2)
        assert torch.equal(step.pool, seen.pool)
        own = ordinary[index]
        assert (step.round, step.number, step.sync_due) == (own.round, own.number, own.sync_due)
