"""The overhead in words: what the paper's figure counts."""

import json
from typing import Any

import pytest

from mocosfl.report.overhead_in_words import overhead_facts
from mocosfl.runs.folder import RunFolder


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({}, "weights once a sync, what crosses the cut twice a sample"),
        (
            {"step_down": 0, "sync": 0, "paper_sync": 0},  # frozen heads
            "what crosses the cut once a sample",
        ),
        ({"step_up": 0, "step_down": 0, "paper_step": 0}, "weights once a sync"),
        (dict.fromkeys(("step_up", "step_down", "sync", "paper_step", "paper_sync"), 0),
         "nothing travels"),
    ],
    ids=["split", "frozen", "whole", "central"],
)  # fmt: skip
def test_paper_counts_what_there_is(quick_run: RunFolder, rates: dict[str, Any], words: str):
    overhead = json.loads(quick_run.overhead.read_text())
    overhead["clients"][0]["rates"] |= rates
    assert dict(overhead_facts(overhead))["As the paper counts"].partition(": ")[2] == words
