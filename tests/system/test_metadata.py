"""Facts come back from a file's metadata as they were, and nothing else does."""

import json

import pytest

from mocosfl.system.metadata import PREFIX, from_metadata, to_metadata

KINDS = {"name": str, "cut": int | None, "mean": tuple[float, ...], "shape": tuple[int, int]}
FACTS = {"name": "é", "cut": None, "mean": (0.1, 1.0), "shape": (3, 4)}


def test_facts_come_back():
    assert from_metadata({**to_metadata(FACTS), "format": "pt"}, KINDS) == FACTS


@pytest.mark.parametrize(
    ("name", "value"),
    [("name", 3), ("cut", "1"), ("cut", True), ("mean", 0.5), ("mean", ["x"]), ("shape", [3])],
)
def test_a_fact_of_another_kind_is_refused(name: str, value: object):
    with pytest.raises((TypeError, ValueError)):
        from_metadata({**to_metadata(FACTS), PREFIX + name: json.dumps(value)}, KINDS)


def test_a_fact_that_is_not_there_or_cut_off_is_refused():
    metadata = to_metadata(FACTS)
    with pytest.raises(ValueError):
        from_metadata({**metadata, PREFIX + "mean": "[0.1"}, KINDS)
    del metadata[PREFIX + "cut"]
    with pytest.raises(KeyError):
        from_metadata(metadata, KINDS)
