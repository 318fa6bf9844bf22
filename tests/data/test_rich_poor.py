"""Rich and poor clients: who holds how much, class by class, and each side too small."""

from functools import partial

import numpy as np
import pytest

from mocosfl.data.partition import KINDS, Partition, make_partition
from mocosfl.data.rich_poor import deal_rich_and_poor

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), [400, 300, 200, 95, 5]))


def among_equals(kind: str, labels: np.ndarray, num_clients: int, stream: str) -> Partition:
    return make_partition(
        kind,
        labels,
        num_clients=num_clients,
        num_classes=5,
        seed=3,
        classes_per_client=2,
        alpha=5.0,
        min_images=1,
        stream=(stream,),
    )


def deal(kind: str = "iid", labels: np.ndarray = LABELS, **changes: float) -> Partition:
    settings = {"num_rich": 4, "num_clients": 20, "rich_data_fraction": 0.8, "seed": 3}
    return deal_rich_and_poor(partial(among_equals, kind), labels, **{**settings, **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_first_clients_hold_their_share_and_every_image_is_dealt_once(kind: str):
    made = deal(kind)
    assert made.num_clients == 20
    assert made.counts[:4].sum() == 800
    np.testing.assert_array_equal(np.sort(made.order), np.arange(len(LABELS)))


def test_each_class_is_divided_in_proportion():
    rich = deal().class_counts(LABELS, 5)[:4].sum(axis=0)
    np.testing.assert_allclose(rich, [320, 240, 160, 76, 4], atol=1)


def test_sides_are_dealt_by_the_kind():
    assert deal("iid").counts.tolist() == [200] * 4 + [13] * 8 + [12] * 8
    classes = (deal("shards").class_counts(LABELS, 5) > 0).sum(axis=1)
    assert classes.mean() < 3


def test_images_of_the_rich_are_drawn_at_random_from_the_seed():
    def rich(seed: int) -> list[int]:
        return np.sort(deal(seed=seed).order[:800]).tolist()

    assert rich(1) == rich(1)
    assert rich(1) != rich(2)
    steps = np.diff(np.nonzero(np.isin(np.arange(1000), rich(1)))[0])
    assert steps.max() >= 4  # spread unevenly, not every fifth left out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rich_data_fraction": 0.99}, "=0.99: leaves 10 images to 16 poor clients; give"),
        ({"rich_data_fraction": 0.003}, "=0.003: leaves 3 images to 4 rich clients; give"),
    ],
)
def test_side_with_fewer_images_than_clients_is_refused(changes: dict[str, float], message: str):
    with pytest.raises(ValueError, match=rf"heterogeneity\.rich_data_fraction{message}"):
        deal(**changes)


def test_side_that_cannot_be_dealt_is_named_with_the_reason():
    message = (
        r"rich_data_fraction=0\.98: the 20 images of the 16 poor clients can't be dealt to them\. "
        r"partition\.classes_per_client=2: 16 clients need 32 shards"
    )
    with pytest.raises(ValueError, match=message):
        deal("shards", rich_data_fraction=0.98)
