"""Remote clients without a network: `TrainingHead`s behind the calls of `RemoteClients`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.client.own_images import OwnImages
from mocosfl.edge.client.training_head import TrainingHead
from mocosfl.edge.server.client_requests import Pair
from mocosfl.edge.server.traffic_ledger import Ledger


class DirectRemoteClients:
    """Asks heads in this process; what crosses is rounded as the wire rounds it."""

    images: Path  # a folder with a folder for each client

    def __init__(self, clients: Mapping[int, Any], settings: Any, credentials: Any) -> None:
        self.clients, self.ledger = clients, Ledger(clients)
        self.heads: dict[int, TrainingHead] = {}
        self.given: dict[int, int] = {}
        self.heads_given = 0  # with a request, to who missed a sync

    def begin(self, *, run: str, step: int, head_of: Any) -> None:
        self.head_of = head_of

    def open(self) -> None:
        for client, record in self.clients.items():
            head = TrainingHead(OwnImages(self.images / str(client)))
            first = self.head_of(client)
            welcome = pb.Welcome(
                run="run", incarnation="it", client=client, settings=record.settings, head=first
            )
            head.begin(welcome)
            self.heads[client], self.given[client] = head, first.step

    def ask_step(
        self, requests: Mapping[int, pb.StepRequest], head_step: int, *, at_least: int
    ) -> dict[int, Pair]:
        answers = {}
        for client, request in requests.items():
            head = self.heads[client]
            if self.given[client] != head_step:
                head.take(self.head_of(client))
                self.given[client] = head_step
                self.heads_given += 1
            dtype = self.clients[client].settings.smashed_dtype
            answers[client] = Pair(*(_across(part, dtype) for part in head.smash(request)))
        return answers

    def send_gradients(self, step: int, gradients: Mapping[int, Any], *, sync_after: bool) -> None:
        for client, gradient in gradients.items():
            dtype = self.clients[client].settings.smashed_dtype
            self.heads[client].learn(_across(gradient, dtype))
        self.syncing = list(gradients) if sync_after else []

    def collect_weights(self) -> dict[int, Pair]:
        return {client: Pair(*self.heads[client].weights()) for client in self.syncing}

    def give_heads(self, heads: Mapping[int, pb.Head]) -> None:
        for client, head in heads.items():
            self.heads[client].take(head)
            self.given[client] = head.step

    def num_images(self, client: int) -> int:
        return len(self.heads[client].images)

    def keep(self, step: int) -> None:
        for head in self.heads.values():
            head.keep(step)

    def close(self, *, finished: bool, text: str) -> None:
        self.finished = finished

    def figures(self) -> dict[str, float]:
        return {}


def _across(values: Any, dtype: int) -> Any:
    tensor = wire.encode_tensor(np.asarray(values), dtype)
    return wire.decode_tensor(tensor, dtype=dtype, shape=values.shape, name="it")
