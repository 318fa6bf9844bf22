"""The data of a run: every image trains or is held out, and the monitor sees training images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mocosfl.config.derived import num_rich_clients
from mocosfl.config.schema import Config
from mocosfl.data.federated_data import FederatedData
from tests.support.configurations import Compose, changed

NUM_TRAINING = 1438  # of 1,797 digits, a fifth of each class being test images
HELD_OUT = {"callbacks.knn_held_out_fraction": 0.1}


@pytest.mark.parametrize("kind", ["iid", "shards", "dirichlet", "quantity_skew"])
def test_every_training_image_belongs_to_one_client(tiny_config: Config, kind: str):
    data = FederatedData(changed(tiny_config, {"partition.kind": kind}))
    assert len(data.dataset.train.labels) == NUM_TRAINING
    assert data.partition.num_clients == 40
    np.testing.assert_array_equal(np.sort(data.partition.order), np.arange(NUM_TRAINING))


def test_partition_settings_reach_the_partition(tiny_config: Config):
    data = FederatedData(changed(tiny_config, {"partition.classes_per_client": 1}))
    classes = data.partition.class_counts(data.dataset.train.labels, 10) > 0
    assert classes.sum(1).mean() < 1.5  # some shards span two classes


def test_rich_clients_hold_their_part_of_the_training_images(tiny_config: Config):
    rich = {"heterogeneity.rich_fraction": 0.25, "heterogeneity.rich_data_fraction": 0.7}
    data = FederatedData(changed(tiny_config, {**rich, **HELD_OUT}))
    num_training = NUM_TRAINING - 143
    assert num_rich_clients(tiny_config) == 10
    assert data.partition.counts[:10].sum() == round(0.7 * num_training)
    assert not np.intersect1d(data.monitor.queries, data.partition.order).size
    assert len(data.partition.order) == num_training


def test_partition_of_a_file_is_taken_as_it_is(tiny_config: Config, tmp_path: Path):
    before = FederatedData(tiny_config).partition
    before.save(tmp_path / "partition.json")
    given = {
        "partition.kind": "file",
        "partition.path": str(tmp_path),
        "seed": 99,
        # Decide on batches, not on who holds what.
        "heterogeneity.rich_fraction": 0.25,
        "heterogeneity.rich_data_fraction": 0.25,
    }
    data = FederatedData(changed(tiny_config, given))
    np.testing.assert_array_equal(data.partition.order, before.order)
    np.testing.assert_array_equal(data.partition.offsets, before.offsets)
    with pytest.raises(ValueError, match=r"deals image \d+, which is held out"):
        FederatedData(changed(tiny_config, HELD_OUT))


def test_leave_one_out_keeps_no_image_from_training(tiny_config: Config):
    monitor = FederatedData(tiny_config).monitor
    assert monitor.queries is None
    assert len(monitor.bank) == 100  # callbacks.knn_num_images
    assert len(np.unique(monitor.bank)) == 100
    assert monitor.bank.max() < NUM_TRAINING


def test_held_out_images_belong_to_no_client_and_are_not_in_the_bank(tiny_config: Config):
    data = FederatedData(changed(tiny_config, {**HELD_OUT, "callbacks.knn_num_images": 5000}))
    queries = data.monitor.queries
    assert queries is not None
    assert len(queries) == 143
    assert not np.intersect1d(queries, data.partition.order).size
    everyone = np.concatenate([queries, data.partition.order])
    np.testing.assert_array_equal(np.sort(everyone), np.arange(NUM_TRAINING))
    np.testing.assert_array_equal(data.monitor.bank, np.sort(data.partition.order))


def test_monitor_with_held_out_images_is_limited_on_both_sides(tiny_config: Config):
    monitor = FederatedData(changed(tiny_config, HELD_OUT)).monitor
    assert monitor.queries is not None
    assert (len(monitor.bank), len(monitor.queries)) == (100, 100)


def test_data_is_a_function_of_the_seed(tiny_config: Config):
    def drawn(seed: int) -> list[np.ndarray]:
        data = FederatedData(changed(tiny_config, {**HELD_OUT, "seed": seed}))
        assert data.monitor.queries is not None
        return [data.partition.order, data.monitor.bank, data.monitor.queries]

    for first, again, other in zip(drawn(1), drawn(1), drawn(2), strict=True):
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


def test_loader_has_the_shape_of_the_run(tiny_config: Config):
    data = FederatedData(tiny_config)
    loader = data.step_loader(data.view_maker(torch.device("cpu")))
    assert data.steps_per_round == NUM_TRAINING // (40 * 3) == 11
    assert len(loader) == 33
    assert loader.block_images == 120
    step = next(iter(loader))
    assert step.view1.shape == step.view2.shape == (30, 3, 16, 16)
    assert step.view1.dtype == torch.float32
    assert abs(float(step.view1.mean())) < 0.5  # normalised: without, the mean were 0.3 / 0.35


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clients.num_clients": 2000}, "clients.num_clients=2000: only 1438 training images"),
        ({"clients.num_clients": 1000}, "partition.classes_per_client=2: 1000 clients need 2000"),
        (
            {"callbacks.knn_num_images": 5000, "callbacks.knn_num_neighbors": 1438},
            "callbacks.knn_num_neighbors=1438: the monitor has only 1437 training images",
        ),
        (
            {"callbacks.knn_held_out_fraction": 0.0005},
            "callbacks.knn_held_out_fraction=0.0005: holds out none of 1438 training images",
        ),
        ({"dataset.image_size": 8}, "dataset.image_size=8: the cache .* was made with 16"),
        ({"dataset.num_classes": 9}, "dataset.num_classes=9: .* holds labels 0 to 9"),
    ],
    ids=str,
)
def test_data_that_do_not_fit_the_configuration_are_refused(
    tiny_config: Config, values: dict[str, Any], message: str
):
    FederatedData(tiny_config)  # fills the cache
    with pytest.raises(ValueError, match=message):
        FederatedData(changed(tiny_config, values))


def test_monitor_that_never_runs_needs_no_neighbours(tiny_config: Config):
    many = {"callbacks.knn_num_neighbors": 5000, "callbacks.knn_every_rounds": 0}
    FederatedData(changed(tiny_config, many))


def test_missing_data_says_where_it_is_looked_for(tiny_config: Config):
    birds = {"dataset.name": "birds", "dataset.source": "image_folder", "dataset.path": "no/birds"}
    with pytest.raises(FileNotFoundError, match=r"dataset\.path=no/birds: no such folder"):
        FederatedData(changed(tiny_config, birds))


@pytest.mark.parametrize("method", ["mocosfl", "monacosfl", "fl_moco"])
def test_self_supervised_methods_are_never_given_labels(
    method: str, compose_quick: Compose
) -> None:
    data = FederatedData(compose_quick([f"method={method}"]))
    step = next(iter(data.step_loader(data.view_maker(torch.device("cpu")))))
    assert step.labels is None
    assert step.view2 is not None


def test_supervised_methods_get_one_view_and_the_labels_of_its_images(
    compose_quick: Compose,
) -> None:
    data = FederatedData(compose_quick(["method=sfl_supervised"]))
    loader = data.step_loader(data.view_maker(torch.device("cpu")))
    for step, indices in zip(loader, loader.first_indices(), strict=False):
        assert step.view2 is None
        assert step.labels is not None
        assert step.labels.tolist() == data.dataset.train.labels[indices].tolist()
