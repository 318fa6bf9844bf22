"""Each rule about the privacy module has a case that breaks it."""

import pytest

from mocosfl.config.choices import TaressflMode
from mocosfl.rules.privacy import check_overrides
from mocosfl.rules.validate import validate
from tests.support.configurations import EXPERT, Compose

ON = ["taressfl=on", "taressfl.expert=some", "split=cut1_c4s2"]
ONLINE = ["taressfl=online", "split=cut1_c4s2"]


@pytest.mark.parametrize(
    "overrides", [[], ON, ONLINE, EXPERT], ids=["off", "on", "online", "expert"]
)
def test_each_mode_is_valid(compose_quick: Compose, overrides: list[str]):
    validate(compose_quick(overrides))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["taressfl.expert=some"], r"taressfl\.expert=some: taressfl=off does not read it"),
        (["+dataset@taressfl.auxiliary=digits"], r"taressfl\.auxiliary=digits: taressfl=off"),
        (["taressfl=on"], r"taressfl\.expert=null: taressfl=on starts from an expert"),
        ([*ON, "optimizer.client_lr=0.1"], r"optimizer\.client_lr=0\.1: with taressfl=on"),
        ([*ON, "method=fl_moco"], r"taressfl\.mode=on: method=fl_moco has no place for it"),
        ([*ONLINE, "method=sfl_supervised"], r"taressfl\.mode=online: method=sfl_supervised"),
        ([*ONLINE, "optimizer.client_lr=0"], r"optimizer\.client_lr=0: with taressfl=online"),
        ([*ONLINE, "saving=by_loss"], r"saving\.enabled=true: with taressfl=online"),
        ([*ONLINE, "clients.client_state=stateless"], r"clients\.client_state=stateless: with"),
        (
            [*ONLINE, "taressfl.max_collapses=1", "callbacks.collapse_window_steps=0"],
            r"callbacks\.collapse_window_steps=0: taressfl\.max_collapses=1",
        ),
        (["taressfl.decoder=resN4"], r"taressfl\.decoder=resN4: unknown decoder"),
        (["taressfl.decoder_lr=0"], r"taressfl\.decoder_lr=0\.0: must be above 0"),
        (["taressfl.alpha=-1"], r"taressfl\.alpha=-1\.0: must be at least 0"),
        (["taressfl.target_ssim=1.1"], r"taressfl\.target_ssim=1\.1: must be from 0 to 1"),
        (["taressfl.target_fraction=-0.1"], r"taressfl\.target_fraction=-0\.1: must be from 0"),
        (["taressfl.max_collapses=-1"], r"taressfl\.max_collapses=-1: must be at least 0"),
        (["taressfl.collapse_alpha_factor=0"], r"collapse_alpha_factor=0\.0: must be above 0"),
        (["taressfl.collapse_lr_factor=2"], r"collapse_lr_factor=2\.0: must be above 0 and at"),
        ([*EXPERT, "taressfl.expert=x"], r"taressfl\.expert=x: taressfl=expert does not read"),
        ([*EXPERT, "clients.num_clients=2"], r"clients\.num_clients=2: an expert is one head"),
        ([*EXPERT, "clients.participation=0.5"], r"clients\.participation=0\.5: an expert"),
        ([*EXPERT, "clients.dropout_probability=0.1"], r"dropout_probability=0\.1: an expert"),
        ([*EXPERT, "heterogeneity=rich_poor"], r"heterogeneity\.rich_fraction=0\.2: an expert"),
        ([*EXPERT, "method.local_epochs=2"], r"method\.local_epochs=2: an expert"),
        ([*EXPERT, "partition=shards"], r"partition\.kind=shards: an expert has no clients"),
        ([*EXPERT, "averaging=by_images"], r"averaging\.kind=by_images: an expert"),
        ([*EXPERT, "taressfl.target_rows=12"], r"taressfl\.target_rows=12: must be above 0 and"),
        ([*EXPERT, "taressfl.target_rows=0"], r"taressfl\.target_rows=0: must be above 0"),
        (
            [*EXPERT, "taressfl.auxiliary.image_size=64"],
            r"taressfl\.auxiliary\.image_size=64: the target's images are dataset\.image_size=16",
        ),
        (
            [*EXPERT, "taressfl.auxiliary.name=digits"],
            r"taressfl\.auxiliary\.name=digits: is the target's data set itself",
        ),
        (["taressfl.max_collapses=2"], r"taressfl\.max_collapses=2: with taressfl=off another try"),
        ([*EXPERT, "dataset.source=pictures"], r"dataset\.source=pictures: an expert reads"),
        (
            [*EXPERT, "taressfl.auxiliary.source=pictures"],
            r"taressfl\.auxiliary\.source=pictures: an expert reads",
        ),
        (
            [*EXPERT, "taressfl.auxiliary.source=mnist"],
            r"taressfl\.auxiliary\.source=mnist: unknown; choose one of digits",
        ),
        (
            [*EXPERT, "taressfl.auxiliary.source=image_folder"],
            r"taressfl\.auxiliary\.path=null: taressfl\.auxiliary\.source=image_folder reads",
        ),
        ([*EXPERT, "taressfl.auxiliary.name=a/b"], r"taressfl\.auxiliary\.name=a/b: .*plain name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_rule_is_told(compose_quick: Compose, overrides: list[str], words: str):
    with pytest.raises(ValueError, match=words):
        validate(compose_quick(overrides))


def test_expert_without_auxiliary_images_is_told(compose_quick: Compose):
    config = compose_quick(EXPERT)
    config.taressfl.auxiliary = None
    with pytest.raises(ValueError, match=r"taressfl\.auxiliary=null: .*dataset@taressfl\.aux"):
        validate(config)


def test_modes_are_the_groups_choices(compose_quick: Compose):
    assert {mode.name for mode in TaressflMode} == {"off", "on", "online", "expert"}


@pytest.mark.parametrize(
    ("mode", "override"),
    [
        ("off", "taressfl.alpha=5"),
        ("on", "taressfl.target_ssim=0.5"),
        ("online", "taressfl.target_fraction=0.5"),
        ("off", "+taressfl.decoder=plain"),
    ],
)
def test_override_that_the_mode_does_not_read_is_refused(mode: str, override: str):
    with pytest.raises(ValueError, match=f"taressfl={mode} does not read it"):
        check_overrides(TaressflMode[mode], ["clients=5", override])
    check_overrides(TaressflMode.expert, ["taressfl=expert", override])
