"""OmegaConf's own part of an error message is left out, and nothing else."""

from collections.abc import Iterator

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mocosfl.system.errors import is_mistake, words


@pytest.fixture(autouse=True)
def refusing_resolver() -> Iterator[None]:
    def refuse() -> None:
        raise ValueError("clients=0: set at least 1\n    full_key: stays")

    OmegaConf.register_new_resolver("refuse", refuse)
    yield
    OmegaConf.clear_resolver("refuse")


@pytest.mark.parametrize(
    "value, expected",
    [
        ("${refuse:}", "clients=0: set at least 1\n    full_key: stays"),
        ("${other}", "clients=0: set at least 1\n    full_key: stays"),
        ("${nowhere}", "Interpolation key 'nowhere' not found"),
        ("???", "Missing mandatory value: value"),
    ],
)
def test_omegaconfs_own_part_of_a_message_is_left_out(value: str, expected: str):
    config = OmegaConf.create({"value": value, "other": "${refuse:}"})
    with pytest.raises(OmegaConfBaseException) as caught:
        _ = config.value
    assert is_mistake(caught.value)
    assert words(caught.value) == expected


def test_other_messages_are_left_alone():
    text = "ValueError raised while resolving interpolation: x\n    full_key: y"
    assert words(ValueError(text)) == text
