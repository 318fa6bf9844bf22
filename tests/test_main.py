"""The list of commands holds each command, and costs no import of torch."""

import re
import subprocess
import sys

from generated_pages.commands import command_line, find_commands

from mocosfl.__main__ import COMMANDS, listing
from tests.support.paths import ROOT


def test_all_commands_are_listed_and_no_other():
    listed = [command.call for group in COMMANDS.values() for command in group]
    assert len(listed) == len(set(listed))
    assert {*listed, "python -m mocosfl"} == set(map(command_line, find_commands()))


def test_lines_fit_a_terminal():
    assert max(map(len, listing().splitlines())) <= 100


def test_listing_is_printed_without_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mocosfl"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == listing() + "\n"
    assert not re.search(r"\| +(torch|hydra|numpy)$", done.stderr, re.MULTILINE)


def test_plan_does_not_wait_for_lightning():
    """What a run imports before it prints its plan; Lightning, matplotlib and W&B take seconds."""
    heavy = ["pytorch_lightning", "matplotlib", "wandb", "scipy", "sklearn", "torchvision"]
    code = f"import sys, mocosfl.training.run; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
