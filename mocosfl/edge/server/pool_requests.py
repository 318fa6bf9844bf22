"""Requests to many clients at once: a step, a sync, a checkpoint; and how long they are waited for.

Everything here runs in the thread of the streams' event loop.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mocosfl.config.edge import EdgeConfig
from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge.server.admission import Standing
from mocosfl.edge.server.client_requests import KEPT, SMASHED, WEIGHTS, ClientRequests, Pair
from mocosfl.edge.server.client_streams import ClientStreams
from mocosfl.edge.wire import Floats

log = logging.getLogger(__name__)

WHAT = {SMASHED: "the step", WEIGHTS: "the sync", KEPT: "the checkpoint"}
WAITING_WORD_SECONDS = 10.0  # between two lines on whom a step waits for


@dataclass
class _Collection:
    """The answers to one request."""

    kind: str
    pending: set[int] = field(default_factory=set)  # asked, connected, without an answer yet
    answers: dict[int, Any] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)  # answered with what was refused


class PoolRequests:
    """Asks, collects, and does without those that come too late."""

    streams: ClientStreams

    def __init__(self, settings: EdgeConfig) -> None:
        """Keep the deadlines; `streams` is set by whoever has both."""
        self.settings = settings
        self.steps = 0  # asked for
        self._standing: Standing | None = None
        self._start_deadline = 0.0
        self._seen: set[int] = set()  # clients that have been connected
        self._collection = _Collection("")
        self._changed = asyncio.Event()
        # By whom the clients were asked for the current step: one that has connected again
        # since has taken that step back.
        self._in_step: dict[int, ClientRequests] = {}

    def begin(self, standing: Standing) -> None:
        """Say where the run stands."""
        self._standing = standing
        self._start_deadline = time.monotonic() + self.settings.start_wait_seconds

    def deliver(self, client: int, kind: str, answer: Any) -> None:
        """Take a client's answer; None where there is none to be had."""
        collection = self._collection
        if collection.kind == kind and client in collection.pending:
            collection.pending.discard(client)
            if answer is None:
                collection.failed.add(client)
            else:
                collection.answers[client] = answer
        self._changed.set()

    def left(self, client: int) -> None:
        """Take note that a client is gone."""
        self._collection.pending.discard(client)
        self._changed.set()

    def joined(self, client: int) -> None:
        """Take note that a client has said Hello."""
        self._seen.add(client)
        self._changed.set()

    async def ask_step(
        self, requests: Mapping[int, pb.StepRequest], head_step: int, *, at_least: int
    ) -> dict[int, Pair]:
        """Ask clients for a step; see `RemoteClients.ask_step`."""
        collection = self._collection = _Collection(SMASHED)
        self._in_step = {}
        # The deadline counts from when the last of those that the step waits for in any case came.
        told = begun = time.monotonic()
        least = min(max(at_least, self.settings.min_clients), len(requests))
        while True:
            self._ask_free(requests, head_step, collection)
            now = time.monotonic()
            # All, not only those of this step: the next pool's would be left out without a word.
            absent = bool(self.streams.clients.keys() - self._seen) and now < self._start_deadline
            waiting = bool(collection.pending) or absent
            enough = len(collection.answers) >= least
            if absent or not enough:
                begun = now
            if not (enough or collection.pending) and collection.failed:
                collection.failed.clear()  # else nobody might be left that could answer
                continue
            deadline = begun + self.settings.step_deadline_seconds
            if enough and (now >= deadline or not waiting):
                break
            if not enough and now - told >= WAITING_WORD_SECONDS:
                told = now
                self._tell_waiting(collection, least)
            await self._change(min(1.0, deadline - now))
        self._do_without(collection)
        self.steps += 1
        return collection.answers

    def _ask_free(
        self, requests: Mapping[int, pb.StepRequest], head_step: int, collection: _Collection
    ) -> None:
        """Ask those that are planned for the step, free, and have not been heard."""
        assert self._standing is not None
        self.streams.let_in(self._standing)
        heard = collection.pending | collection.answers.keys() | collection.failed
        for client, stream in self.streams.free():
            if client not in requests or client in heard:
                continue
            request = requests[client]
            if stream.requests.given != head_step and not stream.hello.exported_head:
                head = self._standing.head_of(client)
                request = pb.StepRequest()
                request.CopyFrom(requests[client])
                request.head.CopyFrom(head)
            collection.pending.add(client)
            self._in_step[client] = stream.requests
            stream.requests.ask_step(request)

    def _tell_waiting(self, collection: _Collection, least: int) -> None:
        log.info(
            "a step waits: %d of at least %d remote clients have answered, %d are connected",
            len(collection.answers),
            least,
            len(self.streams.by_client),
        )

    def _do_without(self, collection: _Collection) -> None:
        """Leave out those that have not answered."""
        for client in sorted(collection.pending):
            log.info("client %d: too late, %s goes on without it", client, WHAT[collection.kind])
            self.streams.by_client[client].requests.give_up_waiting()
        collection.pending.clear()

    async def send_gradients(
        self, step: int, gradients: Mapping[int, Floats], *, sync_after: bool
    ) -> None:
        """Send the gradients of a step to those that are still there."""
        # The weights may come before they are asked for with `collect_weights`.
        collection = self._collection = _Collection(WEIGHTS)
        for client, gradient in gradients.items():
            if self._still_in_step(client):
                if sync_after:
                    collection.pending.add(client)
                self._in_step[client].send_gradient(step, gradient, sync_after=sync_after)

    def _still_in_step(self, client: int) -> bool:
        stream, requests = self.streams.by_client.get(client), self._in_step.get(client)
        if stream is None or stream.requests is not requests:
            return False
        return stream.requests.banned_for is None

    async def collect_weights(self) -> dict[int, Pair]:
        """Return the weights of those that were sent their gradient, as far as they come."""
        assert self._collection.kind == WEIGHTS
        return await self._collect(self._collection)

    async def give_heads(self, heads: Mapping[int, pb.Head]) -> None:
        """Send what a sync gives to those that sent their weights and are still there."""
        for client, head in heads.items():
            if self._still_in_step(client):
                self._in_step[client].give_head(head)

    async def keep(self, step: int) -> None:
        """Have all clients that are free keep their state; says who has not."""
        collection = self._collection = _Collection(KEPT)
        for client, stream in list(self.streams.free()):
            if not stream.hello.exported_head:
                collection.pending.add(client)
                stream.requests.ask_keep(step)
        kept = await self._collect(collection)
        training = {
            client
            for client in self._seen
            if client not in self.streams.by_client
            or not self.streams.by_client[client].hello.exported_head
        }
        if without := sorted(training - kept.keys()):
            log.info(
                "step %d is checkpointed without clients %s: should the server go back to it, they "
                "start from its head",
                step,
                ", ".join(map(str, without)),
            )

    async def _collect(self, collection: _Collection) -> dict[int, Any]:
        deadline = time.monotonic() + self.settings.step_deadline_seconds
        while collection.pending and (now := time.monotonic()) < deadline:
            await self._change(deadline - now)
        self._do_without(collection)
        return collection.answers

    async def _change(self, seconds: float) -> None:
        """Wait until something has happened, at most so long."""
        try:
            await asyncio.wait_for(self._changed.wait(), max(0.001, seconds))
        except TimeoutError:
            return
        finally:
            self._changed.clear()
