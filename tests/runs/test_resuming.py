"""The command that goes on with a run."""

import pytest

from mocosfl.runs.resuming import resume_command


@pytest.mark.parametrize(
    ("edge", "expert", "folder", "command"),
    [
        (False, False, "multirun/r", "python train.py resume=multirun/r"),
        (False, True, "multirun/r", "python -m mocosfl.expert resume=multirun/r"),
        (True, False, "multirun/r", "python -m mocosfl.edge.server resume=multirun/r"),
        (False, False, "my runs/r", "python train.py resume='my runs/r'"),
    ],
)
def test_run_goes_on_with_the_program_that_began_it(
    edge: bool, expert: bool, folder: str, command: str
):
    assert resume_command(edge=edge, expert=expert, folder=folder) == command
