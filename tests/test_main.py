"""The list of commands holds each command, and costs no import of torch."""

import re
import subprocess
import sys
from pathlib import Path

from conftest import CONF

from mocosfl.__main__ import COMMANDS, listing

ROOT = CONF.parent
# Run by our own commands, with a job on standard input.
INTERNAL = {"mocosfl.client_memory", "mocosfl.__main__"}


def commands_of_the_tree() -> set[str]:
    """Return the calls of all files that can be run."""
    files = [*ROOT.glob("*.py"), *ROOT.glob("mocosfl/**/*.py")]
    runnable = [f for f in files if '__name__ == "__main__"' in f.read_text()]
    return {call for file in runnable if (call := call_of(file)) is not None}


def call_of(file: Path) -> str | None:
    if file.parent == ROOT:
        return f"python {file.name}"
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    return None if module in INTERNAL else f"python -m {module.removesuffix('.__main__')}"


def test_all_commands_are_listed_and_no_other():
    listed = [command.call for group in COMMANDS.values() for command in group]
    assert len(listed) == len(set(listed))
    assert set(listed) == commands_of_the_tree()


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
    code = f"import sys, mocosfl.training; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
