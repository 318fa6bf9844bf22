"""The configuration: every choice composes, and says what it is named after."""

import re
from itertools import zip_longest

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from mocosfl.config.choices import PartitionKind, Schedule, Symmetric, TaressflMode
from mocosfl.config.derived import aligns_momentum
from mocosfl.config.hydra_setup import CONF, compose_file
from mocosfl.rules.validate import validate
from tests.support.configurations import Compose

GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
# What the user has to give for the data sets that are his own.
OWN_DATA = ["dataset.path=birds", "dataset.num_classes=20"]
EXTRAS = {
    "image_folder": OWN_DATA,
    "arrays": [*OWN_DATA, "dataset.image_size=32"],
    "file": ["partition.path=old/run"],
    "on": ["taressfl.expert=old/run"],
    "expert": ["clients.num_clients=1", "clients.participation=1", "clients.batch_size=256"],
}


# Groups whose choices exclude some of another group: a method without a cut has nothing to replay,
# one client cannot be rich and poor, and an expert is one head in one place.
ALONE = ("method", "saving", "heterogeneity", "taressfl")


def choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def rows_of_choices() -> list[list[str]]:
    """Return command lines that together take every choice of every group once.

    All but the bottlenecks among the splits and the experiments: tests of their own are quicker.
    """
    columns = [
        [f"{group}={choice}" for choice in choices(group) if "_c" not in choice or group != "split"]
        for group in GROUPS
        if group not in ("experiment", *ALONE)
    ]
    alone = [[f"{group}={choice}"] for group in ALONE for choice in choices(group)]
    return [[choice for choice in row if choice] for row in zip_longest(*columns)] + alone


def test_groups_are_those_of_the_readme():
    swappable = "averaging backbone clients dataset heterogeneity method moco optimizer partition"
    swappable += " saving split taressfl"
    around = "callbacks debug experiment launcher logger trainer"
    assert sorted((swappable + " " + around).split()) == GROUPS


@pytest.mark.parametrize("overrides", rows_of_choices(), ids=" ".join)
def test_every_choice_composes_without_gaps_and_is_valid(compose: Compose, overrides: list[str]):
    names = [override.partition("=")[2] for override in overrides]
    extras = [extra for name in names for extra in EXTRAS.get(name, [])]
    # The digits' 16 pixels are too few for a VGG; rows without a data set have the digits.
    digits = not any(o.startswith("dataset=") and o != "dataset=digits" for o in overrides)
    config = compose([*overrides, *extras, *(["dataset.image_size=32"] if digits else [])])
    assert not OmegaConf.missing_keys(config)
    OmegaConf.to_container(config, resolve=True)
    validate(config)


@pytest.mark.parametrize(
    ("dataset", "missing"),
    [
        ("image_folder", {"dataset.path", "dataset.num_classes"}),
        ("arrays", {"dataset.path", "dataset.num_classes", "dataset.image_size"}),
    ],
)
def test_only_the_users_own_data_leaves_values_to_give(
    compose: Compose, dataset: str, missing: set[str]
):
    config = compose([f"dataset={dataset}"])
    with pytest.raises(ValueError) as error:
        validate(config)
    lines = [f"{key}=???: has no default; set it, as in {key}=<value>" for key in missing]
    assert sorted(str(error.value).splitlines()) == sorted(lines)


@pytest.mark.parametrize(
    ("dataset", "size", "num_images", "num_classes"),
    [
        ("tiny_imagenet", 64, 100_000, 200),
        ("imagenet12", 224, None, 12),
        ("imagenet", 224, 1_281_167, 1000),
    ],
)
def test_sets_in_folders_have_their_published_shapes(
    compose: Compose, dataset: str, size: int, num_images: int | None, num_classes: int
):
    config = compose([f"dataset={dataset}", "dataset.path=birds"]).dataset
    assert (config.image_size, config.num_train_images) == (size, num_images)
    assert config.num_classes == num_classes


@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 2), ("cifar100", 20)])
def test_shards_deal_the_published_number_of_classes(compose: Compose, dataset: str, classes: int):
    assert compose([f"dataset={dataset}"]).partition.classes_per_client == classes


def test_five_axes_are_chosen_by_name(compose: Compose):
    overrides = "dataset=cifar10 split=cut2 partition=shards clients=1000 taressfl=off moco=v2"
    config = compose(overrides.split())
    validate(config)
    assert config.dataset.name == "cifar10"
    assert config.split.cut_layer == 2
    assert config.partition.kind is PartitionKind.shards
    assert config.clients.num_clients == 1000
    assert config.taressfl.mode is TaressflMode.off
    # Nothing of the digits' smaller network is left.
    assert (config.backbone.width, config.moco.queue_length) == (64, 6000)
    assert (config.moco.projector_hidden, config.moco.projector_dim) == (1024, 1024)
    assert config.moco.symmetric is Symmetric.server
    assert config.optimizer.schedule is Schedule.cosine


def test_split_is_chosen_by_name_and_overridden(compose: Compose):
    named = compose(["split=cut2_c4s2"]).split
    assert (named.cut_layer, named.bottleneck_channels, named.bottleneck_stride) == (2, 4, 2)
    assert compose(["split.cut_layer=5"]).split.cut_layer == 5


@pytest.mark.parametrize("name", [name for name in choices("split") if "_c" in name])
def test_bottleneck_is_what_its_name_says(compose: Compose, name: str):
    cut, channels, stride = re.fullmatch(r"cut(\d)_c(\d+)s(\d)", name).groups()
    config = compose([f"split={name}"])
    split = config.split
    assert split.cut_layer == int(cut)
    assert (split.bottleneck_channels, split.bottleneck_stride) == (int(channels), int(stride))
    validate(config)


@pytest.mark.parametrize("name", [f"cut{layer}" for layer in range(1, 10)])
def test_cut_is_what_its_name_says(compose: Compose, name: str):
    split = compose([f"split={name}"]).split
    assert (f"cut{split.cut_layer}", split.bottleneck_channels) == (name, None)


def test_method_monacosfl_aligns_and_sends_both_views(compose: Compose):
    config = compose(["method=monacosfl"])
    assert aligns_momentum(config)
    assert config.moco.symmetric is Symmetric.full
    assert not aligns_momentum(compose([]))


@pytest.mark.parametrize(
    ("moco", "hidden", "dim"),
    [("v1", None, 128), ("small_v2", 512, 512), ("large_v2", 4096, 2048)],
)
def test_projector_is_the_one_its_choice_is_named_after_on_small_data_too(
    compose: Compose, moco: str, hidden: int | None, dim: int
):
    chosen = compose([f"moco={moco}"]).moco
    assert (chosen.projector_hidden, chosen.projector_dim) == (hidden, dim)


def test_moco_v1_has_no_blur_one_sided_loss_and_step_decay(compose: Compose):
    config = compose(["moco=v1"])
    assert config.moco.augmentation.blur_probability == 0
    assert config.moco.symmetric is Symmetric.none
    assert config.optimizer.schedule is Schedule.step


@pytest.mark.parametrize("key", ["split.cut_layr", "clints.num_clients"])
def test_mistyped_key_fails_with_its_full_path(compose: Compose, key: str):
    with pytest.raises(ConfigCompositionException, match=key):
        compose([f"{key}=1"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [("split.cut_layer=two", "Integer"), ("moco.symmetric=both", "server")],
)
def test_value_of_a_wrong_type_fails(compose: Compose, override: str, expected: str):
    with pytest.raises(ConfigCompositionException) as error:
        compose([override])
    assert expected in str(error.value.__cause__)


def test_unknown_choice_fails_with_the_known_ones(compose: Compose):
    with pytest.raises(ConfigCompositionException, match=r"(?s)clients/3.*20_cross_silo"):
        compose(["clients=3"])


def test_probe_configuration_composes_and_asks_for_a_checkpoint_alone():
    assert OmegaConf.missing_keys(compose_file("linear_probe")) == {"checkpoint"}
