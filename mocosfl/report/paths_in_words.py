"""How folders are named in a page that may be published: without the machine's part of a path."""

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mocosfl.config.identity import without_places

# An absolute path of two parts at least, and not the rest of a URL, a fraction or a relative path.
_ABSOLUTE = re.compile(r"(?<![\w.:/<>{}~-])(?:/[\w.+=@~-]+)+/([\w.+=@~-]+)")


def shown_path(folder: Path) -> str:
    """Return a folder by its place below the current one, or by its name alone."""
    absolute, here = folder.resolve(), Path.cwd()
    if absolute.is_relative_to(here):
        return str(absolute.relative_to(here))
    return f"<folder of the runs>/{absolute.name}"


def quoted_path(folder: Path) -> str:
    """Return `shown_path` as it stands in a command."""
    return shlex.quote(shown_path(folder))


def shown_words(text: str, folder: Path, settings: Iterable[Any] = ()) -> str:
    """Return what a run says, with paths by their last part and its own folder as it is shown.

    Args:
        text: such as why the run failed.
        folder: of the run.
        settings: values of the run; those that are paths are found in the text whatever they hold.
    """
    known = {str(place): shown_path(folder) for place in (folder.absolute(), folder.resolve())}
    paths = [value for value in settings if isinstance(value, str) and _is_far(value)]
    known |= {path: f".../{without_places(path)}" for path in paths if path not in known}
    for path in sorted(known, key=len, reverse=True):
        text = text.replace(path, known[path])
    return _ABSOLUTE.sub(r".../\1", text)


def _is_far(path: str) -> bool:
    """Return whether a text is an absolute path that is not the root or just below it."""
    return Path(path).is_absolute() and len(Path(path).parts) > 2
