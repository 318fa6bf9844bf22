"""An expert's batches: rows of its own images and of auxiliary ones."""

import numpy as np
import pytest
import torch

from mocosfl.data.expert_data import ExpertData, JoinedImages, num_target_images, open_data
from tests.support.configurations import Compose

NUM_TARGET = 29  # 2 % of the 1,438 digits that train


def test_a_batch_is_target_rows_and_auxiliary_rows_of_one_head(compose_expert: Compose):
    data = open_data(compose_expert([]))
    assert isinstance(data, ExpertData)
    assert data.partition.counts.tolist() == [NUM_TARGET, 1438]
    loader = data.step_loader(data.view_maker(torch.device("cpu")))
    assert len(loader) == 3 * (1438 // 8)  # a round is a pass over the auxiliary images
    indices = loader.first_indices()
    rows = np.stack(indices)
    assert ((rows < 1438).sum(axis=1) == 4).all()
    assert set(rows[rows < 1438]) == set(data.partition.client(0))
    auxiliary = rows[rows >= 1438]
    assert len(set(auxiliary)) == len(auxiliary) == 8 * (1438 // 8)
    step = next(iter(loader))
    assert step.view1.shape == (12, 3, 16, 16)
    assert step.pool.tolist() == step.groups[0].places.tolist() == [0]
    assert [group.batch_size for group in step.groups] == [12]


def test_without_target_images_all_rows_are_auxiliary(compose_expert: Compose):
    data = open_data(compose_expert(["taressfl.target_fraction=0"]))
    assert data.partition.counts.tolist() == [1438]
    assert data.steps_per_round == 1438 // 12
    loader = data.step_loader(data.view_maker(torch.device("cpu")))
    assert all((rows >= 1438).all() for rows in loader.first_indices())


def test_target_subset_is_drawn_by_the_seed(compose_expert: Compose):
    subsets = [
        set(open_data(compose_expert([f"seed={seed}"])).partition.client(0)) for seed in (1, 1, 2)
    ]
    assert subsets[0] == subsets[1] != subsets[2]


def test_fraction_that_leaves_no_image_is_refused(compose_expert: Compose):
    config = compose_expert(["taressfl.target_fraction=0.0001"])
    words = r"taressfl\.target_fraction=0\.0001: leaves none of the 1438 .* at least 0\.000695"
    with pytest.raises(ValueError, match=words):
        open_data(config)
    assert num_target_images(config, 50_000) == 5


def test_joined_images_are_numbered_one_behind_the_other():
    first, second = (np.random.default_rng(i).integers(0, 256, (n, 4, 4, 3), np.uint8)
                     for i, n in enumerate((5, 3)))  # fmt: skip
    joined = JoinedImages(first, second)
    both = np.concatenate([first, second])
    assert joined.shape == both.shape
    assert len(joined) == 8
    for rows in (np.array([7, 0, 4, 5]), slice(3, 7), slice(0, 2)):
        assert np.array_equal(np.asarray(joined[rows]), both[rows])
