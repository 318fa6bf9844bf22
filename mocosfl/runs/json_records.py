"""Reading the JSON records of a run: finished.json, overhead.json, results.json and the like."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class DamagedFile(ValueError):
    """A file of a run can't be read; `reason` says why, without the file's name."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def read_record(path: Path, counts: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a JSON file of a run holds.

    Args:
        path: of the file.
        counts: keys whose values, where there are any, are whole numbers.

    Raises:
        DamagedFile: it can't be read, or is not of the form that mocosfl writes.
    """
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise DamagedFile(path, f"not readable JSON ({type(error).__name__})") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(c, 0), int) for c in counts):
        raise DamagedFile(path, "not of the form that mocosfl writes")
    return content
