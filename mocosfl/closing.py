"""The last lines of a run: where everything is, and what to try next."""

import shlex
from pathlib import Path

from mocosfl.checkpoint import read_checkpoint
from mocosfl.config import Config
from mocosfl.going_on import resume_command, shown
from mocosfl.run_folder import RunFolder
from mocosfl.taressfl_rules import is_expert

_WIDTH = 12  # of the first column


def closing_words(config: Config, folder: RunFolder, *, has_test_images: bool) -> str:
    """Return what a run says at its end.

    Args:
        config: of the run.
        folder: of the run, with all that it has written.
        has_test_images: whether its encoder can be probed.
    """
    lines = [f"{name:<{_WIDTH}} {text}" for name, text in _places(folder)]
    commands = _next(config, folder, has_test_images)
    return "\n".join([*lines, "next", *(f"  {command}  # {what}" for command, what in commands)])


def _places(folder: RunFolder) -> list[tuple[str, str]]:
    """Return what the folder holds, in a reader's order."""
    best = " (best.ckpt: best by kNN)" if folder.best.is_file() else ""
    files = {"curves": folder.metrics, "overhead": folder.overhead}
    folders = {"pictures": folder.pictures, "probe": folder.probe, "profile": folder.profile}
    return [
        ("folder", f"{shown(folder.path)}/"),
        ("encoder", f"{_below(folder, folder.last)}{best}"),
        *((name, _below(folder, path)) for name, path in files.items() if path.is_file()),
        *((name, f"{_below(folder, path)}/") for name, path in folders.items() if path.is_dir()),
    ]


def _below(folder: RunFolder, path: Path) -> str:
    return str(path.relative_to(folder.path))


def _next(config: Config, folder: RunFolder, has_test_images: bool) -> list[tuple[str, str]]:
    name = shlex.quote(str(shown(folder.path)))
    report = (f"python -m mocosfl.report {name}", "all of it as one page")
    if is_expert(config):
        return [
            (f"python -m mocosfl.attack checkpoint={name}", "how much its head gives away"),
            (
                f"python train.py taressfl=on taressfl.expert={name}",
                "a federation with its head; add the dataset=, split=, backbone= and moco= of here",
            ),
            report,
        ]
    probe = (f"python linear_probe.py checkpoint={name}", "what its features are worth")
    probed = folder.probe.is_dir() or not has_test_images
    return [report] if probed else [probe, report]


def how_to_go_on(config: Config, folder: RunFolder) -> str:
    """Return what an interrupted run has saved, and the command that goes on from there."""
    saved = "nothing is saved, it starts again"
    if folder.last.is_file():
        saved = f"saved is step {read_checkpoint(folder.last)['global_step']:,}"
    command = resume_command(
        edge=config.edge is not None, expert=is_expert(config), folder=str(shown(folder.path))
    )
    return f"{saved}; go on with: {command}"
