"""Whether a process is there."""

from pathlib import Path


def running(pid: int) -> bool:
    """Say whether a process runs; one that waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
