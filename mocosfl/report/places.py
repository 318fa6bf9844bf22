"""How a run's folder is named in a page that may be published."""

from pathlib import Path


def shown_path(folder: Path) -> str:
    """Return a folder as a command may name it, without the machine's own part of the path."""
    absolute, here = folder.resolve(), Path.cwd()
    if absolute.is_relative_to(here):
        return str(absolute.relative_to(here))
    return f"<folder of the runs>/{absolute.name}"
