"""Contestants that take turns, each in a process of its own.

A contestant trains without end and tells its `Pace` of each step; the pace stops it between two
blocks of steps, so that one contestant computes at a time. Memory and the allocator's settings are
each process's own.
"""

import contextlib
import multiprocessing
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from benchmarks.machine import Memory, forget_peak, memory


class Block(NamedTuple):
    """What a contestant tells of a block of steps."""

    step_seconds: float  # mean over the block
    memory: Memory  # of the block
    parts: dict[str, float]  # seconds a step by part, where the contestant looks at them

    def plain(self) -> dict[str, Any]:
        """Return what goes into the JSON."""
        return {
            "step_seconds": self.step_seconds,
            **self.memory._asdict(),
            **({"parts": self.parts} if self.parts else {}),
        }


class Finished(Exception):
    """The contestant has nothing more to do."""


class Pace:
    """A contestant's side of the line."""

    def __init__(self, connection: Connection, device: str) -> None:
        self._connection, self._device = connection, device
        self._left = self._length = 0
        self._start = 0.0
        self.parts: Callable[[], dict[str, float]] = dict  # seconds since the last call, by part

    def begin(self) -> None:
        """Say that all is built, and wait for the first block.

        Raises:
            Finished: there is none.
        """
        self._report(None)

    def step_done(self) -> None:
        """Count a step; at the end of a block report it and wait for the next.

        Raises:
            Finished: there is no next.
        """
        self._left -= 1
        if self._left:
            return
        self._synchronise()
        each = (time.perf_counter() - self._start) / self._length
        parts = {name: total / self._length for name, total in self.parts().items()}
        self._report(Block(each, memory(self._device), parts))

    def _report(self, block: Block | None) -> None:
        self._connection.send(block)
        length = self._connection.recv()
        if length is None:
            raise Finished
        self._left = self._length = length
        forget_peak(self._device)
        self.parts()  # what lies between two blocks belongs to neither
        self._synchronise()
        self._start = time.perf_counter()

    def _synchronise(self) -> None:
        synchronise(self._device)


Contestant = Callable[[Any, Pace], None]


def synchronise(device: str) -> None:
    """Wait for the GPU, where there is one."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def _serve(
    connection: Connection, contestant: Contestant, settings: Any, device: str, num_threads: int
) -> None:
    """Run a contestant in this process; the last message is how it failed, if it did."""
    import torch

    torch.set_num_threads(num_threads)
    try:
        contestant(settings, Pace(connection, device))
    except Finished:
        pass
    except Exception:
        connection.send(traceback.format_exc())  # `Racer.wait` raises it


class Racer:
    """A contestant's process, seen from outside."""

    def __init__(
        self, name: str, contestant: Contestant, settings: Any, *, device: str, num_threads: int
    ) -> None:
        """Start the process.

        Args:
            name: of the contestant.
            contestant: function of a module; is called with the settings and a pace.
            settings: what it needs to know; can be pickled.
            device: `cpu` or `cuda`.
            num_threads: it computes on.
        """
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        arguments = (other, contestant, settings, device, num_threads)
        self._process = context.Process(target=_serve, args=arguments, daemon=False)
        self._process.start()
        other.close()

    def wait(self) -> Block | None:
        """Return the block that is reported next; None for the first report.

        Raises:
            RuntimeError: the contestant failed.
        """
        try:
            report: Block | str | None = self._connection.recv()
        except EOFError as error:
            self._process.join()
            raise RuntimeError(
                f"{self.name}: its process died, exit code {self._process.exitcode}; "
                "-9 means that it was killed, as for want of memory"
            ) from error
        if isinstance(report, str):
            raise RuntimeError(f"{self.name} failed:\n{report}")
        return report

    def run(self, num_steps: int) -> Block:
        """Let it do some steps, at least 1."""
        self._connection.send(num_steps)
        block = self.wait()
        assert block is not None
        return block

    def close(self) -> None:
        """End the process, in peace if it is waiting."""
        with contextlib.suppress(OSError):  # it is gone
            self._connection.send(None)
        self._process.join(timeout=20)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()


def race(
    contestants: Mapping[str, tuple[Contestant, Any]],
    *,
    device: str,
    num_threads: int,
    repeats: int,
    num_steps: int,
    warmup_blocks: int = 1,
) -> dict[str, list[Block]]:
    """Let contestants take turns, and return their blocks, one a round.

    Args:
        contestants: name -> (contestant, settings).
        device: `cpu` or `cuda`.
        num_threads: each computes on.
        repeats: rounds; each begins with another contestant than the one before.
        num_steps: of a block.
        warmup_blocks: that each does before, unmeasured.

    Raises:
        RuntimeError: a contestant failed.
    """
    racers: list[Racer] = []
    try:
        for name, (contestant, settings) in contestants.items():
            racer = Racer(name, contestant, settings, device=device, num_threads=num_threads)
            racers.append(racer)
            racer.wait()  # one after the other, so that none is timed while another is built
            for _ in range(warmup_blocks):
                racer.run(num_steps)
        blocks: dict[str, list[Block]] = {racer.name: [] for racer in racers}
        for number in range(repeats):
            first = number % len(racers)
            for racer in racers[first:] + racers[:first]:
                blocks[racer.name].append(racer.run(num_steps))
        return blocks
    finally:
        for racer in racers:
            racer.close()
