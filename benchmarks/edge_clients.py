"""Clients of a networked federation, many in one process; for `benchmarks.edge`.

    python -m benchmarks.edge_clients <HOST:PORT> <folder of images> <id> ...

Client i holds `<folder>/<i>/images.npy`, trains its head, and says itself who it is. Prints
{"<i>": {"steps": ..., "up": {message: bytes}, "down": {...}}, ...} as JSON when the run is over.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import torch

from mocosfl.edge.connection import Server
from mocosfl.edge.own_images import OwnImages
from mocosfl.edge.session import run_session
from mocosfl.edge.training_head import TrainingHead

GIVE_UP_SECONDS = 120.0  # without a server; the benchmark may have been ended


async def _session(address: str, folder: Path, client: int) -> dict[str, Any]:
    images = OwnImages(folder / str(client))
    tally = await run_session(
        TrainingHead(images),
        Server(address),
        num_images=len(images),
        client=client,
        give_up_after=GIVE_UP_SECONDS,
    )
    return {
        "steps": tally.steps,
        "left_out": tally.left_out,
        "reconnects": tally.reconnects,
        "compute_seconds": tally.compute_seconds,
        "up": dict(tally.bytes_up),
        "down": dict(tally.bytes_down),
    }


async def _all(address: str, folder: Path, clients: list[int]) -> dict[int, dict[str, Any]]:
    tallies = await asyncio.gather(*(_session(address, folder, client) for client in clients))
    return dict(zip(clients, tallies, strict=True))


def main() -> None:
    """Take part in a run with all the clients that the command line names."""
    address, folder, *clients = sys.argv[1:]
    torch.set_num_threads(1)
    tallies = asyncio.run(_all(address, Path(folder), [int(client) for client in clients]))
    print(json.dumps(tallies))


if __name__ == "__main__":
    main()
