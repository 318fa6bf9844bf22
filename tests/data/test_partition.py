"""Partitions: every image once, sizes, skew, and each bad setting."""

from pathlib import Path

import numpy as np
import pytest

from mocosfl.data.partition import KINDS, Partition, make_partition

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 100))


def partition(kind: str = "shards", labels: np.ndarray = LABELS, **changes: object) -> Partition:
    settings = {
        "num_clients": 50,
        "num_classes": 10,
        "seed": 3,
        "classes_per_client": 2,
        "alpha": 0.5,
        "min_images": 2,
    }
    return make_partition(kind, labels, **{**settings, **changes})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_clients", [1, 7, 50])
def test_every_image_goes_to_exactly_one_client(kind: str, num_clients: int):
    made = partition(kind, num_clients=num_clients)
    assert made.num_clients == num_clients
    held = np.concatenate([made.client(client) for client in range(num_clients)])
    np.testing.assert_array_equal(np.sort(held), np.arange(len(LABELS)))
    assert made.counts.tolist() == [len(made.client(client)) for client in range(num_clients)]


@pytest.mark.parametrize("kind", KINDS)
def test_partition_is_a_function_of_its_seed(kind: str):
    np.testing.assert_array_equal(partition(kind).order, partition(kind).order)
    assert not np.array_equal(partition(kind).order, partition(kind, seed=4).order)


def test_iid_parts_differ_by_at_most_one_image():
    sizes = partition("iid", num_clients=7).counts
    assert sizes.tolist() == [143] * 6 + [142]


def test_iid_parts_mix_the_classes():
    counts = partition("iid", num_clients=5).class_counts(LABELS, 10)
    assert counts.min() > 5  # of 20 on average


def test_shards_hold_the_chosen_number_of_classes_where_shards_end_with_classes():
    made = partition("shards", num_clients=50)  # 100 shards of 10 images
    assert set(made.counts) == {20}
    classes = (made.class_counts(LABELS, 10) > 0).sum(axis=1)
    assert classes.max() == 2
    assert classes.mean() > 1.5


def test_shards_across_a_class_boundary_add_at_most_one_class_each():
    made = partition("shards", num_clients=7, classes_per_client=3)  # 21 shards of 47 or 48
    assert (made.class_counts(LABELS, 10) > 0).sum(axis=1).max() <= 6
    assert made.counts.max() - made.counts.min() <= 3


def test_shards_are_runs_of_the_sorted_labels():
    labels = np.sort(LABELS)
    made = partition("shards", labels, num_clients=10, classes_per_client=1)
    assert sorted(made.client(client).tolist() for client in range(10)) == [
        list(range(start, start + 100)) for start in range(0, 1000, 100)
    ]


def test_dirichlet_follows_alpha_and_min_images():
    skewed = partition("dirichlet", num_clients=10, alpha=0.1, min_images=5)
    even = partition("dirichlet", num_clients=10, alpha=1000.0)
    assert skewed.counts.min() >= 5
    assert skewed.class_counts(LABELS, 10).std() > 4 * even.class_counts(LABELS, 10).std()
    assert abs(even.class_counts(LABELS, 10) - 10).max() <= 3


def test_dirichlet_does_not_follow_the_order_of_the_images():
    made = partition("dirichlet", np.sort(LABELS), num_clients=2, alpha=1000.0)
    first = np.sort(made.client(0))
    assert np.diff(first).max() < 30  # about half of each class, drawn from all over it


def test_quantity_skew_follows_alpha_and_min_images():
    skewed = partition("quantity_skew", num_clients=20, alpha=0.2, min_images=7).counts
    even = partition("quantity_skew", num_clients=20, alpha=10_000.0).counts
    assert skewed.min() >= 7
    assert skewed.max() > 3 * 50  # three times the mean
    assert abs(even - 50).max() <= 3


def test_quantity_skew_leaves_nothing_to_draw_where_all_images_are_spoken_for():
    assert set(partition("quantity_skew", min_images=20).counts) == {20}


def test_quantity_skew_mixes_the_classes():
    made = partition("quantity_skew", np.sort(LABELS), num_clients=2, alpha=1000.0)
    assert made.class_counts(np.sort(LABELS), 10).min() > 25  # of 50 on average


def test_stream_names_a_draw_of_its_own():
    assert not np.array_equal(partition("iid").order, partition("iid", stream=("rich",)).order)


def test_class_counts_match_a_plain_count():
    made = partition("dirichlet")
    counts = made.class_counts(LABELS, 10)
    for client in range(50):
        expected = [int((LABELS[made.client(client)] == label).sum()) for label in range(10)]
        assert counts[client].tolist() == expected


def test_partition_survives_saving(tmp_path: Path):
    made = partition("dirichlet")
    made.save(tmp_path / "partition.json")
    loaded = Partition.load(tmp_path / "partition.json")
    np.testing.assert_array_equal(loaded.order, made.order)
    np.testing.assert_array_equal(loaded.offsets, made.offsets)
    assert loaded.order.dtype == loaded.offsets.dtype == np.int64
    assert [file.name for file in tmp_path.iterdir()] == ["partition.json"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"offsets": [0, 1]}',
        '{"offsets": [0, 3], "order": [0, 1]}',
        '{"offsets": [0, 0, 2], "order": [0, 1]}',
        '{"offsets": [0, 2], "order": [1, 1]}',
        '{"offsets": [0, 2], "order": [1, 2.5]}',
        '{"offsets": [0, 2], "order": [1, 20000000000000000000000]}',
        '{"offsets": [0, 2], "order": [[1], [2]]}',
    ],
)
def test_broken_partition_file_is_named(tmp_path: Path, text: str):
    path = tmp_path / "partition.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"partition\.json: no partition .*; start a new run"):
        Partition.load(path)


def test_a_hundred_thousand_clients_are_dealt_quickly():
    labels = np.random.default_rng(0).integers(0, 10, 200_000)
    for kind in ("iid", "shards"):
        made = partition(kind, labels, num_clients=100_000)
        assert made.counts.max() - made.counts.min() == 0
        assert made.class_counts(labels, 10).sum() == 200_000


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("iid", {"num_clients": 2000}, "clients.num_clients=2000: only 1000 training images; low"),
        ("shards", {"num_clients": 600}, "classes_per_client=2: .* 1200 shards, .*1000 .*; lower"),
        ("dirichlet", {"min_images": 21}, "partition.min_images=21: .*need 1050.*1000; lower"),
        ("dirichlet", {"min_images": 20, "alpha": 0.1}, "partition.alpha=0.1: in 100.*; raise"),
        ("quantity_skew", {"min_images": 21}, "partition.min_images=21: .*need 1050.*1000; lower"),
    ],
)
def test_too_few_images_for_a_setting_raise_with_a_way_out(
    kind: str, changes: dict[str, object], message: str
):
    with pytest.raises(ValueError, match=message):
        partition(kind, **changes)
