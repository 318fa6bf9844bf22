"""The command that goes on with a run that has not finished."""

import shlex
from pathlib import Path

from mocosfl.config.derived import is_expert, num_remote
from mocosfl.config.schema import Config
from mocosfl.runs.checkpoint_content import STEP
from mocosfl.runs.folder import RunFolder


def resume_command(*, edge: bool, expert: bool, folder: str) -> str:
    """Return what a user types to go on with a run.

    Args:
        edge: whether its clients, or some of them, are other machines.
        expert: whether it trains an expert for TAResSFL.
        folder: of the run, as it is to be named.
    """
    program = "train.py"
    if expert:
        program = "-m mocosfl.expert"
    elif edge:
        program = "-m mocosfl.edge.server"
    return f"python {program} resume={shlex.quote(folder)}"


def shown(path: Path) -> Path:
    """Return a path as it can be typed here: relative where it lies below the current folder."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def how_to_go_on(config: Config, folder: RunFolder) -> str:
    """Return what an interrupted run has saved, and the command that goes on from there."""
    saved = "nothing is saved, it starts again"
    if folder.last.is_file():
        # Imported here: a report, which names the command too, starts without torch.
        from mocosfl.runs.checkpoint import read_checkpoint

        saved = f"saved is step {read_checkpoint(folder.last)[STEP]:,}"
    command = resume_command(
        edge=num_remote(config) > 0, expert=is_expert(config), folder=str(shown(folder.path))
    )
    return f"{saved}; go on with: {command}"
