"""A fresh process from its start to the end of its first step, by phase; for `startup`.

    python -m benchmarks.first_step <device> <override> ...

Prints {"seconds": {phase: ...}, "own_bytes": {phase: ...}} as JSON. Nothing heavy is imported
before the clock runs.
"""

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.machine import memory

PHASES = ("imports", "configuration", "data and partition", "plan", "files", "build", "first step")


class Clock:
    """Seconds and memory at the end of each phase."""

    def __init__(self) -> None:
        """Start."""
        self.seconds: dict[str, float] = {}
        self.own_bytes: dict[str, int] = {}
        self._last = time.perf_counter()

    def end(self, phase: str) -> None:
        """End a phase, and begin the next."""
        now = time.perf_counter()
        self.seconds[phase], self._last = now - self._last, now
        self.own_bytes[phase] = memory().own_bytes


def main() -> None:
    """Do what `train.py` does, up to its first step."""
    device, *overrides = sys.argv[1:]
    clock = Clock()
    from benchmarks.starting import start

    clock.end("imports")
    with TemporaryDirectory() as folder:
        start(tuple(overrides), Path(folder), clock.end, device=device)
    print(json.dumps({"seconds": clock.seconds, "own_bytes": clock.own_bytes}))


if __name__ == "__main__":
    main()
