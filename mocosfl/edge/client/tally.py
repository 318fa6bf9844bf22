"""What a client has done so far: images, steps, bytes, seconds."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts over the life of a client's program, through all its connections."""

    images: int = 0  # that were drawn and sent, each with its two views
    steps: int = 0  # that counted: with a gradient, or sent by a frozen head
    left_out: int = 0  # steps whose gradient never came
    refused: int = 0  # messages that the server did not accept
    welcomes: int = 0  # connections on which the server let the client in
    compute_seconds: float = 0.0  # in the head
    # Bytes of the messages as serialised, without what HTTP/2 and TLS put around them.
    bytes_up: Counter[str] = field(default_factory=Counter)  # by the message's name
    bytes_down: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the start of the program."""
        return time.monotonic() - self.started

    @property
    def reconnects(self) -> int:
        """Times that the client came back."""
        return max(0, self.welcomes - 1)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count the seconds of the block."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.compute_seconds += time.monotonic() - start

    def describe(self) -> str:
        """Return a few lines for the user."""
        return "\n".join(
            [
                f"images    {self.images:,} in {self.steps:,} steps; left out of "
                f"{self.left_out:,} more, {self.refused:,} messages refused",
                f"bytes up  {_bytes(self.bytes_up)}",
                f"     down {_bytes(self.bytes_down)}",
                f"seconds   {self.seconds:,.1f}, of these {self.compute_seconds:,.1f} computing; "
                f"{self.reconnects:,} reconnections",
            ]
        )


def _bytes(counts: Counter[str]) -> str:
    kinds = ", ".join(f"{name} {number:,}" for name, number in counts.most_common())
    return f"{counts.total():,}" + (f" ({kinds})" if kinds else "")
