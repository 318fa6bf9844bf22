"""Rules across the configuration: each has a failing case with key, value, rule and way out."""

import copy
from typing import Any

import pytest
from omegaconf import OmegaConf

from mocosfl.rules.validate import validate
from tests.support.configurations import Compose, changed
from tests.support.problems import problems

HUNDRED = ["partition=shards", "clients=100"]  # not what the default run happens to be
# Key, a value that breaks its bound, the rule. All are broken at once: one validation for all.
OUT_OF_RANGE: list[tuple[str, Any, str]] = [
    ("seed", -1, "must be at least 0"),
    ("dataset.image_size", -1, "must be at least 8"),
    ("dataset.num_classes", 0, "must be at least 1"),
    ("dataset.test_fraction", 1.0, "must be from 0 to below 1"),
    ("partition.classes_per_client", 0, "must be at least 1"),
    ("partition.min_images", 0, "must be at least 1"),
    ("heterogeneity.rich_batch_factor", 0, "must be at least 1"),
    ("heterogeneity.rich_data_fraction", 1.0, "must be above 0 and below 1"),
    ("heterogeneity.rich_fraction", 1.0, "must be from 0 to below 1; 0 makes all clients alike"),
    ("dataset.num_workers", 0, "must be at least 1"),
    ("partition.alpha", 0.0, "must be above 0 and finite"),
    ("clients.num_clients", -1, "must be at least 1"),
    ("clients.batch_size", 0, "must be at least 1"),
    ("clients.syncs_per_round", 0, "must be at least 1"),
    ("clients.num_rounds", 0, "must be at least 1"),
    ("clients.participation", 1.5, "must be above 0 and at most 1"),
    ("moco.queue_length", 0, "must be at least 1"),
    ("moco.temperature", 0.0, "must be above 0"),
    ("moco.momentum", 1.1, "must be from 0 to 1"),
    ("moco.projector_hidden", 0, "must be at least 1"),
    ("moco.projector_dim", 0, "must be at least 1"),
    ("moco.augmentation.jitter_probability", -0.1, "must be from 0 to 1"),
    ("moco.augmentation.grey_probability", 1.1, "must be from 0 to 1"),
    ("moco.augmentation.blur_probability", 2.0, "must be from 0 to 1"),
    ("moco.augmentation.flip_probability", -1.0, "must be from 0 to 1"),
    ("moco.augmentation.brightness", -0.4, "must be at least 0"),
    ("moco.augmentation.contrast", -0.4, "must be at least 0"),
    ("moco.augmentation.saturation", -0.4, "must be at least 0"),
    ("moco.augmentation.hue", 0.6, "must be from 0 to 0.5, half a turn"),
    ("method.local_epochs", 0, "must be at least 1"),
    ("saving.warmup_rounds", -1, "must be at least 0"),
    ("saving.loss_threshold", -0.1, "must be at least 0"),
    ("clients.dropout_probability", 1.0, "must be from 0 to below 1"),
    ("averaging.divergence_strength", 0.0, "must be above 0 and at most 1"),
    ("optimizer.server_lr", float("nan"), "must be at least 0"),
    ("optimizer.client_lr", -0.06, "must be at least 0"),
    ("optimizer.momentum", 1.1, "must be from 0 to 1"),
    ("optimizer.weight_decay", -1.0, "must be at least 0"),
    ("optimizer.step_decay_server", -0.1, "must be at least 0"),
    ("optimizer.step_decay_client", -0.2, "must be at least 0"),
    ("trainer.max_steps", 0, "must be at least 1, or -1 for all"),
    ("trainer.log_every_steps", 0, "must be at least 1"),
    ("trainer.overfit_steps", -1, "must be at least 0"),
    ("trainer.view_block_images", 0, "must be at least 1"),
    ("trainer.num_threads", 0, "must be at least 1"),
    ("callbacks.checkpoint_every_steps", 0, "must be at least 1"),
    ("callbacks.checkpoint_every_minutes", 0.0, "must be above 0"),
    ("callbacks.knn_every_rounds", -1, "must be at least 0"),
    ("callbacks.knn_held_out_fraction", -0.1, "must be from 0 to below 1"),
    ("callbacks.knn_num_neighbors", 0, "must be at least 1"),
    ("callbacks.knn_temperature", 0.0, "must be above 0"),
    ("callbacks.collapse_window_steps", -1, "must be at least 0"),
    ("callbacks.collapse_loss_margin", -1.0, "must be at least 0"),
    ("callbacks.collapse_min_std", -1.0, "must be at least 0"),
]
# What is broken, and the one line that says so.
CASES: list[tuple[dict[str, Any], str]] = [
    (
        {"seed": "???"},
        "seed=???: has no default; set it, as in seed=<value>",
    ),
    (
        {"dataset.source": "mnist"},
        "dataset.source=mnist: unknown; choose one of digits, cifar10, cifar100, svhn, "
        "stl10, fashion_mnist, image_folder, pictures, arrays",
    ),
    (
        {"dataset.mean": [0.5]},
        "dataset.mean=[0.5]: needs three values, one a channel",
    ),
    (
        {"dataset.std": []},
        "dataset.std=[]: needs three values, one a channel",
    ),
    (
        {"dataset.std": [0.2, 0.0, 0.2]},
        "dataset.std=[0.2, 0.0, 0.2]: must be above 0",
    ),
    (
        {"dataset.name": "a/b"},
        "dataset.name=a/b: names a folder below data_dir; give one plain name",
    ),
    (
        {"dataset.name": ".."},
        "dataset.name=..: names a folder below data_dir; give one plain name",
    ),
    (
        {"dataset.path": "birds"},
        "dataset.path=birds: dataset.source=digits does not read it; leave it null",
    ),
    (
        {"dataset.source": "pictures"},
        "dataset.path=null: dataset.source=pictures reads the folder it names; set "
        "dataset.path=<folder>",
    ),
    (
        {"dataset.source": "svhn", "dataset.test_fraction": 0.1},
        "dataset.test_fraction=0.1: dataset.source=svhn brings its own test images; set it to 0",
    ),
    (
        {"clients.participation": 0.0},
        "clients.participation=0.0: must be above 0 and at most 1",
    ),
    (
        {"clients.participation": 0.004},
        "clients.participation=0.004: leaves an empty pool of 100 clients; use at least 0.01",
    ),
    (
        {"partition.classes_per_client": 11},
        "partition.classes_per_client=11: the data set has dataset.num_classes=10; use at most "
        "that many",
    ),
    (
        {"partition.alpha": float("inf")},
        "partition.alpha=inf: must be above 0 and finite",
    ),
    (
        {"partition.kind": "file"},
        "partition.path=null: partition.kind=file reads it; name a partition.json, or the folder "
        "of a run that has one",
    ),
    (
        {"partition.path": "old/run"},
        "partition.path=old/run: partition.kind=shards does not read it; use partition=file, or "
        "leave it null",
    ),
    (
        {"heterogeneity.rich_fraction": 0.996, "moco.queue_length": 3200},
        "heterogeneity.rich_fraction=0.996: leaves no poor client among 100; change it, or use "
        "heterogeneity=none",
    ),
    (
        {"heterogeneity.rich_fraction": 0.004},
        "heterogeneity.rich_fraction=0.004: leaves no rich client among 100; change it, or use "
        "heterogeneity=none",
    ),
    (
        {"heterogeneity.rich_data_fraction": 0.0},
        "heterogeneity.rich_data_fraction=0.0: must be above 0 and below 1",
    ),
    (
        {"moco.queue_length": 199},  # 100 clients, an image each, both ways
        "moco.queue_length=199: shorter than the 200 keys of one step; use at least 200, or fewer "
        "or smaller clients",
    ),
    (
        {"moco.feature_sharing": False, "moco.queue_length": 199},
        "moco.queue_length=199: leaves 1 keys to each of 100 private queues, a client brings 2 a "
        "step; use at least 200, or moco.feature_sharing=true",
    ),
    (
        {"backbone.name": "resnet20"},
        "backbone.name=resnet20: unknown; choose one of resnet18, resnet34, resnet50, resnet101, "
        "resnet152, vgg11, vgg13, vgg16, vgg19, mobilenetv2",
    ),
    (
        {"backbone.width": 6},
        "backbone.width=6: must be a positive multiple of 4 (GroupNorm)",
    ),
    (
        {"split.cut_layer": 10},
        "split.cut_layer=10: resnet18 has 9 units; choose a cut from 1 to 9",
    ),
    (
        {"split.cut_layer": 0},
        "split.cut_layer=0: resnet18 has 9 units; choose a cut from 1 to 9",
    ),
    (
        {"split.client_residual": False, "backbone.name": "vgg11", "dataset.image_size": 32},
        "split.client_residual=false: a VGG has no residual connections; set it to true",
    ),
    (
        {"split.bottleneck_channels": 0},
        "split.bottleneck_channels=0: at least 1, or null",
    ),
    (
        {"split.bottleneck_channels": 4, "split.bottleneck_stride": 3},
        "split.bottleneck_stride=3: unknown; choose one of 1, 2, 4",
    ),
    (
        {"split.bottleneck_stride": 2},
        "split.bottleneck_stride=2: there is no bottleneck; set split.bottleneck_channels too, or "
        "leave the stride at 1",
    ),
    (
        {"split.bottleneck_channels": 4, "split.bottleneck_kernel": 2},
        "split.bottleneck_kernel=2: must be odd and at least 1",
    ),
    (
        {"moco.projector_hidden": None, "moco.projector_batch_norm": True},
        "moco.projector_batch_norm=true: a linear projector (moco.projector_hidden=null) has no "
        "hidden layer to normalise; set it to false",
    ),
    (
        {"moco.augmentation.crop_scale_min": 0.0},
        "moco.augmentation.crop_scale_min=0.0, moco.augmentation.crop_scale_max=1.0: must be "
        "0 < min <= max <= 1",
    ),
    (
        {"moco.augmentation.crop_ratio_min": 2.0, "moco.augmentation.crop_ratio_max": 1.5},
        "moco.augmentation.crop_ratio_min=2.0, moco.augmentation.crop_ratio_max=1.5: must be "
        "0 < min <= max",
    ),
    (
        {"moco.augmentation.blur_sigma_min": 0.0},
        "moco.augmentation.blur_sigma_min=0.0, moco.augmentation.blur_sigma_max=2.0: must be "
        "0 < min <= max",
    ),
    (
        {"trainer.accelerator": "tpu"},
        "trainer.accelerator=tpu: unknown; choose one of auto, cpu, gpu",
    ),
    (
        {"trainer.precision": "fp16"},
        "trainer.precision=fp16: unknown; choose one of fp32, bf16, fp64",
    ),
    (
        {"trainer.devices": 0},
        "trainer.devices=0: must be at least 1, the number of processes",
    ),
    (
        {"logger.wandb_mode": "disabled"},
        "logger.wandb_mode=disabled: unknown; choose one of offline, online",
    ),
    (
        {"callbacks.knn_num_images": 20, "callbacks.knn_num_neighbors": 20},
        "callbacks.knn_num_neighbors=20: must be below callbacks.knn_num_images=20",
    ),
    (
        {"callbacks.knn_num_images": 0, "callbacks.knn_every_rounds": 0},
        "callbacks.knn_num_images=0: must be at least 1",
    ),
    (
        {"callbacks.knn_held_out_fraction": 1.0},
        "callbacks.knn_held_out_fraction=1.0: must be from 0 to below 1",
    ),
]


NOT_NUMBERS = [
    ("clients.participation", float("nan")),
    ("clients.participation", float("inf")),
    ("heterogeneity.rich_fraction", float("nan")),
    ("heterogeneity.rich_fraction", float("inf")),
]


@pytest.mark.parametrize(("key", "value"), NOT_NUMBERS)
def test_fraction_that_is_no_number_is_told_by_its_key(compose: Compose, key: str, value: float):
    (line,) = problems(changed(compose(HUNDRED), {key: value}))
    assert line.startswith(f"{key}={value}: must be ")


WHOLE = "method=fl_moco keeps the whole network on the client"
METHOD_CASES: list[tuple[str, dict[str, Any], str]] = [
    (
        "mocosfl",
        {"split.cut_layer": None},
        "split.cut_layer=null: method=mocosfl cuts the network; set a cut from 1 on",
    ),
    ("fl_moco", {"split.cut_layer": 2}, f"split.cut_layer=2: {WHOLE}; leave it null"),
    (
        "fl_moco",
        {"split.bottleneck_channels": 4},
        f"split.bottleneck_channels=4: {WHOLE}; leave it null",
    ),
    (
        "fl_moco",
        {"optimizer.client_lr": 0.0},
        f"optimizer.client_lr=0: {WHOLE}, so nothing would train; set it above 0",
    ),
    (
        "fl_moco",
        {"moco.symmetric": "server"},
        "moco.symmetric=server: method=fl_moco has no server that could exchange queries and "
        "keys; use full or none",
    ),
    (
        "fl_moco",
        {"moco.projector_batch_norm": True, "callbacks.knn_features": "projection"},
        "callbacks.knn_features=projection: a client's projector with BatchNorm keeps no running "
        "statistics to be evaluated by; use backbone",
    ),
    (
        "fl_moco",
        {"moco.projector_batch_norm": True, "moco.symmetric": "none"},
        "clients.batch_size=1: BatchNorm in a client's projector needs at least 2 rows of its own "
        "a step; raise it, or moco.projector_batch_norm=false",
    ),
    (
        "fl_moco",
        {"saving.enabled": True},
        "saving.enabled=true: method=fl_moco sends no pairs of smashed data to replay; use "
        "saving=off",
    ),
    (
        "fl_moco",
        {"moco.feature_sharing": True},
        "moco.feature_sharing=true: clients of method=fl_moco see no keys but their own; set it "
        "to false",
    ),
    (
        "mocosfl",
        {"clients.dropout_probability": 0.5, "clients.participation": 0.01},
        "clients.dropout_probability=0.5: a step needs a client, and the pool has only one; set "
        "it to 0, or use more clients",
    ),
    (
        "mocosfl",
        {"averaging.kind": "by_images", "optimizer.client_lr": 0.0},
        "averaging.kind=by_images: optimizer.client_lr=0 freezes the heads, so nothing is "
        "averaged; use averaging=mean",
    ),
    (
        "mocosfl",
        {
            "averaging.kind": "divergence_aware",
            "clients.client_state": "stateless",
            "clients.participation": 0.5,
        },
        "averaging.kind=divergence_aware: with clients.client_state=stateless a client that "
        "leaves the pool keeps nothing of its own; use client_state=bank or averaging=mean",
    ),
    (
        "central_moco",
        {"clients.num_clients": 2},
        "clients.num_clients=2: method=central_moco has one client that holds all images; set it "
        "to 1, or choose a federated method",
    ),
]


@pytest.mark.parametrize(("method", "values", "line"), METHOD_CASES)
def test_setting_that_a_method_has_no_place_for_is_the_one_problem_reported(
    compose: Compose, method: str, values: dict[str, Any], line: str
):
    assert problems(changed(compose([*HUNDRED, f"method={method}"]), values)) == [line]


def test_queue_must_hold_the_keys_of_the_pool_with_the_largest_batches(compose: Compose):
    # 20 of 100 clients are rich and bring 16 images: a pool of 30 has at most 20 of them.
    config = compose([*HUNDRED, "heterogeneity=rich_poor", "clients.participation=0.3"])
    keys = 2 * (20 * 16 + 10)
    validate(changed(config, {"moco.queue_length": keys}))
    (line,) = problems(changed(config, {"moco.queue_length": keys - 1}))
    assert line.startswith(f"moco.queue_length={keys - 1}: shorter than the {keys} keys")


@pytest.mark.parametrize(
    ("values", "line"),
    CASES,
    ids=[",".join(f"{k}={v}" for k, v in case.items()) for case, _ in CASES],
)
def test_broken_rule_is_the_one_problem_reported(
    compose: Compose, values: dict[str, Any], line: str
):
    assert problems(changed(compose(HUNDRED), values)) == [line]


def test_all_problems_are_reported_together(compose: Compose):
    config = changed(compose(HUNDRED), {key: value for key, value, _ in OUT_OF_RANGE})
    expected = [f"{key}={value}: {rule}" for key, value, rule in OUT_OF_RANGE]
    assert sorted(problems(config)) == sorted(expected)


def test_network_too_deep_for_the_images_names_their_size(compose: Compose):
    (line,) = problems(changed(compose(HUNDRED), {"backbone.name": "vgg11"}))
    assert line.startswith("dataset.image_size=16: too small for this backbone")
    assert "use larger images or a backbone with fewer pools" in line


@pytest.mark.parametrize(
    "values",
    [
        {"moco.queue_length": 200},
        {"moco.queue_length": 100, "moco.symmetric": "none"},
        {"moco.queue_length": 200, "moco.feature_sharing": False},
        {"moco.queue_length": 20, "clients.participation": 0.1},
        {"partition.kind": "iid", "partition.classes_per_client": 11},  # of shards alone
        {"callbacks.knn_num_images": 20, "callbacks.knn_every_rounds": 0},
        {"callbacks.knn_held_out_fraction": 0.0},
        {"partition.kind": "file", "partition.path": "old/run"},
        {"dataset.source": "pictures", "dataset.path": "birds", "dataset.test_fraction": 0.2},
        {"split.cut_layer": 9},
        {"optimizer.client_lr": 0.0},
    ],
    ids=str,
)
def test_value_at_its_bound_is_allowed(compose: Compose, values: dict[str, Any]):
    validate(changed(compose(HUNDRED), values))


@pytest.mark.parametrize("values", [{}, {"seed": -1}])
def test_validation_changes_nothing(compose: Compose, values: dict[str, Any]):
    config = changed(compose(HUNDRED), values)
    before = copy.deepcopy(config)
    try:
        validate(config)
    except ValueError:
        assert values
    assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(before)  # interpolations too


def test_compile_modes_are_those_of_torch(compose_quick: Compose) -> None:
    with pytest.raises(ValueError, match=r"trainer.compile_mode=fastest: unknown; choose one of"):
        validate(compose_quick(["trainer.compile_mode=fastest"]))


def test_unknown_name_is_reported_alone(compose: Compose) -> None:
    """What follows from a method that is not known is not known either."""
    config = compose(["clients=100", "seed=-1"])
    config.method.name = "fedavg"
    with pytest.raises(ValueError) as error:
        validate(config)
    assert str(error.value) == (
        "method.name=fedavg: unknown; choose one of mocosfl, monacosfl, fl_moco, central_moco, "
        "sfl_supervised, central_supervised"
    )
