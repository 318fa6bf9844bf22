"""Which checkpoint a command reads, and where the command writes: for probe, attack and embed."""

from pathlib import Path
from typing import NamedTuple

from mocosfl.runs.checkpoint import find_checkpoint
from mocosfl.runs.folder import RunFolder, of_best

EXPORTED = ".safetensors"  # suffix of an exported encoder, which needs nothing of its run


class Chosen(NamedTuple):
    """An encoder and the folder for what is found out about it."""

    file: Path  # its checkpoint; of an untrained one, the run's configuration
    run: RunFolder | None  # that the file is of
    output: Path  # folder to write into
    name: str  # of what is found out, for the folder in the run and for logged names


def choose(
    checkpoint: str,
    which: str,
    *,
    name: str,
    output_dir: str | None,
    without_run: Path | None = None,
) -> Chosen:
    """Return the checkpoint that a user means, and where to write about it.

    What is found out about the best checkpoint has a name of its own, because it would else take
    the place of what is found out about the last.

    Args:
        checkpoint: a checkpoint file, an exported encoder or a run folder.
        which: `last` or `best`, for a run folder.
        name: of what is found out.
        output_dir: the user's; None: the folder `name` in the run.
        without_run: folder for a file that is of no run; None: the user must name one.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: `which` is something else, or nobody says where to write.
    """
    file = find_checkpoint(Path(checkpoint), which)
    run = RunFolder(file.parent.parent)
    if file.suffix == EXPORTED or not run.config.is_file():
        output = without_run if output_dir is None else Path(output_dir)
        if output is None:
            raise ValueError(
                f"checkpoint={Path(checkpoint)}: is in no run folder; say where to write, "
                "output_dir="
            )
        return Chosen(file, None, output, name)
    if file == run.best:
        name = of_best(name)
    return _chosen(file, run, name, output_dir)


def choose_untrained(run: RunFolder, output_dir: str | None) -> Chosen:
    """Return what a run started from, and where to write what the probes find of it.

    Args:
        run: its folder.
        output_dir: the user's; None: `probe_untrained` in the run.
    """
    return _chosen(run.config, run, run.probe_untrained.name, output_dir)


def _chosen(file: Path, run: RunFolder, name: str, output_dir: str | None) -> Chosen:
    return Chosen(file, run, Path(output_dir or run.path / name), name)
