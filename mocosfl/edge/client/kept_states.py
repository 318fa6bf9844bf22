"""What a client can go back to: the newest two states that the server had it keep.

Two, because the server writes a checkpoint after the clients have kept theirs: killed in between,
it goes back to the checkpoint before.

With a folder the states outlive the program. A file is written beside its place and renamed, so
that a kill leaves the old states or the new ones.
"""

import fcntl
import hashlib
import logging
import os
import weakref
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mocosfl.edge import federation_pb2 as pb
from mocosfl.system.files import replaced_file

logger = logging.getLogger(__name__)

NUM_KEPT = 2
_PATTERN = "kept-*.pt"


class SavedState(NamedTuple):
    """All that shapes a client's next step; tensors are flat, (num_parameters,)."""

    client: int
    run: str
    step: int  # of the run, done
    head_step: int
    online: Tensor
    momentum: Tensor
    buffer: Tensor | None  # of SGD; None before its first step


class KeptStates:
    """The states of one client, oldest first."""

    def __init__(self, folder: Path | None) -> None:
        """Find what an earlier process has kept.

        Args:
            folder: of this client alone; None: nothing outlives the program.

        Raises:
            ValueError: another process uses the folder.
            OSError: it can't be written.
        """
        self.folder = folder
        self._states: list[SavedState] = []
        self._next_number = 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            weakref.finalize(self, os.close, _locked(folder))
            self._find(folder)

    @property
    def named(self) -> list[pb.KeptState]:
        """Return what there is, for Hello."""
        return [
            pb.KeptState(run=state.run, step=state.step, head_step=state.head_step)
            for state in self._states
        ]

    def get(self, run: str, step: int) -> SavedState | None:
        """Return a state; None where it was not kept."""
        found = [s for s in self._states if (s.run, s.step) == (run, step)]
        return found[-1] if found else None

    def add(self, state: SavedState) -> None:
        """Keep a state in place of an older one.

        Args:
            state: its tensors must be the keeper's alone.
        """
        same = (state.run, state.step)
        states = [s for s in self._states if (s.run, s.step) != same]
        self._replace([*states, state][-NUM_KEPT:], state)

    def forget_after(self, run: str, step: int) -> None:
        """Drop the states of a run behind a step: the run has gone back and may go another way."""
        self._replace([s for s in self._states if s.run != run or s.step <= step])

    def _replace(self, states: list[SavedState], new: SavedState | None = None) -> None:
        """Let these be the states, the new one written before an old one is removed."""
        left = {_file_name(state) for state in states}
        old = {_file_name(state) for state in self._states}
        if self.folder is not None:
            if new is not None:
                self._write(self.folder / _file_name(new), new)
            for name in old - left:
                (self.folder / name).unlink(missing_ok=True)
        self._states = states

    def _write(self, path: Path, state: SavedState) -> None:
        content = {**state._asdict(), "number": self._next_number}
        with replaced_file(path) as file:
            torch.save(content, file)
        self._next_number += 1

    def _find(self, folder: Path) -> None:
        found: list[tuple[int, SavedState]] = []
        for path in sorted(folder.glob(_PATTERN)):
            try:
                content = torch.load(path, weights_only=True)
                found.append((content.pop("number"), SavedState(**content)))
            # torch.load raises whatever it stumbles over, also in a file that was cut short.
            except Exception as error:
                logger.warning("%s is no state that was kept (%r); left alone", path, error)
        found.sort(key=lambda pair: pair[0])
        self._states = [state for _, state in found]
        self._next_number = found[-1][0] + 1 if found else 0


def _file_name(state: SavedState) -> str:
    # A run's name comes from the server; as a digest it can't lead out of the folder.
    run = hashlib.sha256(state.run.encode()).hexdigest()[:12]
    return f"kept-{run}-{state.step:08d}.pt"


def _locked(folder: Path) -> int:
    """Take the folder's lock; it is free again when the descriptor is closed, as by a kill."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(
            f"--state {folder}: another client uses this folder; give each client its own"
        ) from None
    return descriptor
