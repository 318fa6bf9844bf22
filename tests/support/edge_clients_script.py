"""Clients in a process of their own, for tests of the networked federation.

    python tests/support/edge_clients_script.py job.json

The job: `address`; `clients`: a list of {"id", "images"}, optional "state"; `certificates`: folder
with a folder for each client, or null; `give_up_after`. Each client's tally is printed at the end
as one line of JSON.

Optional: `pause_seconds` before each answer, so that a run takes a while; `late_steps`, in which
an answer waits for a file of the step's number in the folder `late`.
"""

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge.client.own_images import OwnImages
from mocosfl.edge.client.participation import take_part
from mocosfl.edge.client.server_connection import ServerAddress
from mocosfl.edge.client.training_head import TrainingHead
from mocosfl.edge.credentials import read_credentials
from mocosfl.edge.wire import Floats


class ScriptedHead(TrainingHead):
    """Takes its time, and knows in which steps it took part."""

    def __init__(self, images: OwnImages, state_folder: Path | None, job: dict[str, Any]) -> None:
        super().__init__(images, state_folder)
        self.pause_seconds = job.get("pause_seconds", 0)
        self.late_steps, self.late = job.get("late_steps", ()), job.get("late")
        self.learned: list[int] = []
        self.step = 0

    def smash(self, request: pb.StepRequest) -> tuple[Floats, Floats]:
        self.step = request.step
        time.sleep(self.pause_seconds)
        while self.step in self.late_steps and not (Path(self.late) / str(self.step)).exists():
            time.sleep(0.01)
        return super().smash(request)

    def learn(self, gradient: Floats) -> None:
        super().learn(gradient)
        self.learned.append(self.step)


async def take_part_as(job: dict[str, Any], client: dict[str, Any]) -> dict[str, Any]:
    folder = job["certificates"]
    credentials = None
    if folder is not None:
        own = Path(folder) / str(client["id"])
        credentials = read_credentials(own, "--certificates").for_client()
    images = OwnImages(Path(client["images"]))
    state = client.get("state")
    head = ScriptedHead(images, None if state is None else Path(state), job)
    tally = await take_part(
        head,
        ServerAddress(job["address"], credentials),
        num_images=len(images),
        client=client["id"],
        give_up_after=job.get("give_up_after"),
    )
    return {
        "client": client["id"],
        "images": tally.images,
        "steps": tally.steps,
        "left_out": tally.left_out,
        "learned": head.learned,
        "reconnects": tally.reconnects,
        "up": dict(tally.bytes_up),
        "down": dict(tally.bytes_down),
    }


async def main(job: dict[str, Any]) -> None:
    tallies = await asyncio.gather(*(take_part_as(job, client) for client in job["clients"]))
    for tally in tallies:
        sys.stdout.write(json.dumps(tally) + "\n")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
