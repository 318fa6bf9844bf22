"""Clients of golden traces, one process for each.

    python tests/support/golden_client_script.py CLIENTS...

Each line of standard input is a job: `trace`, `address`, `certificates` (a folder with a folder for
each client), `results` (a folder). The process takes part as those of its clients that the trace
has, writes what they end with to results/<client>.pt, and answers with a line.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge.client.own_images import OwnImages
from mocosfl.edge.client.participation import take_part
from mocosfl.edge.client.server_connection import ServerAddress
from mocosfl.edge.client.training_head import TrainingHead
from mocosfl.edge.credentials import read_credentials
from tests.support.golden_traces import Trace, load_trace, views


class TracedHead(TrainingHead):
    """Sees the trace's views in place of its own images'."""

    def __init__(self, images: OwnImages, trace: Trace, client: int) -> None:
        super().__init__(images)
        traced = views(trace)
        self.traced_views = {
            step: (traced[0][step, pool.index(client)], traced[1][step, pool.index(client)])
            for step, pool in enumerate(trace["config"]["pools"])
            if client in pool
        }

    def views(self, request: pb.StepRequest) -> tuple[Tensor, Tensor]:
        return self.traced_views[request.step]


async def replay(job: dict[str, Any], trace: Trace, client: int) -> None:
    results = Path(job["results"])
    head = TracedHead(OwnImages(results), trace, client)
    credentials = read_credentials(Path(job["certificates"]) / str(client), "certificates")
    server = ServerAddress(job["address"], credentials.for_client())
    await take_part(head, server, num_images=1, give_up_after=60)
    torch.save(
        {
            "online": dict(head.client.online.named_parameters()),
            "momentum": dict(head.client.momentum.named_parameters()),
        },
        results / f"{client}.pt",
    )


async def run(job: dict[str, Any], clients: list[int]) -> None:
    trace = load_trace(Path(job["trace"]))
    there = [client for client in clients if client < trace["config"]["clients"]]
    await asyncio.gather(*(replay(job, trace, client) for client in there))


def main(clients: list[int]) -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        asyncio.run(run(json.loads(line), clients))
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]])
