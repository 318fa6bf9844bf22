"""Reads back what an offline W&B run has written: a log of records in LevelDB's format."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK_BYTES = 32768
HEADER = struct.Struct("<IHB")  # checksum, length, kind of fragment
FULL, LAST = 1, 4  # kinds that end a record; in between are 2 (first) and 3 (middle)


class OfflineRun:
    """One `offline-run-*` folder: what `wandb sync` would send of it."""

    def __init__(self, folder: Path) -> None:
        (file,) = folder.glob("*.wandb")
        self.run: Any = None
        self.exit_code: int | None = None
        self.config: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}  # what was set, not what W&B makes of the history
        self.metrics: dict[str, Any] = {}
        for record in _records(file.read_bytes()):
            self._read(record)

    def _read(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.run = self.run or record.run
            self._update(self.config, record.run.config.update)
        elif kind == "config":
            self._update(self.config, record.config.update)
        elif kind == "summary":
            self._update(self.summary, record.summary.update)
        elif kind == "history":
            self.history.append(self._update({}, record.history.item))
        elif kind == "metric":
            self.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "exit":
            self.exit_code = record.exit.exit_code

    @staticmethod
    def _update(target: dict[str, Any], items: Any) -> dict[str, Any]:
        for item in items:
            name = "/".join(item.nested_key) if item.nested_key else item.key
            target[name] = json.loads(item.value_json)
        return target

    @property
    def keys(self) -> set[str]:
        """Names that were logged or set, without W&B's own."""
        logged = {name for row in self.history for name in row}
        return {name for name in logged | set(self.summary) if not name.startswith("_")}

    def media(self, name: str) -> list[dict[str, Any]]:
        """What was logged of a picture or a table, each time."""
        return [row[name] for row in self.history if name in row]


def offline_runs(folder: Path) -> list[OfflineRun]:
    """Read a run folder's W&B runs, the oldest first."""
    return [OfflineRun(path) for path in sorted(folder.glob("wandb/offline-run-*"))]


def _records(content: bytes) -> Iterator[Any]:
    at, parts = 7, b""  # behind the file's own header
    while at + HEADER.size <= len(content):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < HEADER.size:
            at += left  # the rest of a block is padding
            continue
        _, length, kind = HEADER.unpack_from(content, at)
        at += HEADER.size
        parts += content[at : at + length]
        at += length
        if kind in (FULL, LAST):
            yield Record.FromString(parts)
            parts = b""
