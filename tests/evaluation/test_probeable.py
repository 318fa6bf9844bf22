"""A data set that can't be probed is refused in words, before any work."""

import numpy as np
import pytest

from mocosfl.data.cache import ImageArrays, ImageDataset
from mocosfl.evaluation.probeable import check_probeable

IMAGES = ImageArrays(np.zeros((5, 8, 8, 3), np.uint8), np.zeros(5, np.int64))
DATASET = ImageDataset(IMAGES, IMAGES, ("a",))


def test_a_data_set_needs_test_images():
    with pytest.raises(ValueError, match=r"dataset\.name=mine: has no test images.*\.npy"):
        check_probeable("mine", DATASET._replace(test=None), 5, "k")


@pytest.mark.parametrize("num_neighbors", [0, 6])
def test_neighbours_out_of_bounds_name_their_own_key(num_neighbors: int):
    with pytest.raises(ValueError, match=rf"its\.key={num_neighbors}: .* from 1 to the 5 training"):
        check_probeable("mine", DATASET, num_neighbors, "its.key")


def test_all_training_images_may_be_neighbours():
    check_probeable("mine", DATASET, 5, "its.key")
