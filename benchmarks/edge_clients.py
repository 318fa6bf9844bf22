"""Clients of a networked federation, many in one process; for `benchmarks.edge`.

    python -m benchmarks.edge_clients HOST:PORT <folder of images> --clients 0 1 2

Client i holds `<folder>/<i>/images.npy` and trains its head. Prints
{"<i>": {"steps": ..., "up": {message: bytes}, "down": {...}}, ...} as JSON when the run is over.
"""

import argparse
import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from mocosfl.edge.client.own_images import OwnImages
from mocosfl.edge.client.participation import take_part
from mocosfl.edge.client.server_connection import ServerAddress
from mocosfl.edge.client.training_head import TrainingHead
from mocosfl.edge.credentials import read_credentials

GIVE_UP_SECONDS = 120.0  # without a server; the benchmark may have been ended


async def _session(options: argparse.Namespace, client: int) -> dict[str, Any]:
    images = OwnImages(options.images / str(client))
    credentials = None
    if options.certificates is not None:
        own = options.certificates / "clients" / str(client)
        credentials = read_credentials(own, "--certificates").for_client()
    tally = await take_part(
        TrainingHead(images),
        ServerAddress(options.server, credentials),
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


async def _all(options: argparse.Namespace) -> dict[int, dict[str, Any]]:
    # One head computes at a time: more threads of one interpreter only wait for each other.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=1))
    clients = options.clients
    tallies = await asyncio.gather(*(_session(options, client) for client in clients))
    return dict(zip(clients, tallies, strict=True))


def main() -> None:
    """Take part in a run with all the clients that the command line names."""
    parser = argparse.ArgumentParser(description="Clients of a networked federation.")
    parser.add_argument("server", help="HOST:PORT")
    parser.add_argument("images", type=Path, help="folder with a folder for each client")
    parser.add_argument("--clients", type=int, nargs="+", required=True, help="their ids")
    parser.add_argument("--certificates", type=Path, default=None, help="None: plain text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(asyncio.run(_all(options))))


if __name__ == "__main__":
    main()
