"""What the training sees of its remote clients: calls that ask all of them, and wait.

gRPC's event loop runs in a thread of its own. The training calls from its thread, and waits; a
client that connects is let in while a step is being asked for: the training waits then, and the
head that the client starts from can be read.
"""

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from mocosfl.config.edge import EdgeConfig
from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge.credentials import Credentials
from mocosfl.edge.server.admission import HeadOf, Standing
from mocosfl.edge.server.client_requests import Pair
from mocosfl.edge.server.client_settings import RemoteClient
from mocosfl.edge.server.client_streams import ClientStreams
from mocosfl.edge.server.pool_requests import PoolRequests
from mocosfl.edge.server.traffic_ledger import Ledger
from mocosfl.edge.wire import Floats
from mocosfl.system.units import MEGABYTE

log = logging.getLogger(__name__)

T = TypeVar("T")


class RemoteClients:
    """The remote clients of a run."""

    def __init__(
        self,
        clients: Mapping[int, RemoteClient],
        settings: EdgeConfig,
        credentials: Credentials | None,
    ) -> None:
        """Put the parts together; `open` begins to listen.

        Args:
            clients: the remote clients by id.
            settings: where to listen, deadlines and limits.
            credentials: of the server; None for plain text, where a client is who it says.
        """
        self.clients, self.settings, self.ledger = clients, settings, Ledger(clients)
        self.port = 0
        self._requests = PoolRequests(settings)
        self._streams = ClientStreams(
            clients,
            self.ledger,
            self._requests,
            credentials=credentials,
            max_refusals=settings.max_refusals,
        )
        self._requests.streams = self._streams
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="edge", daemon=True)

    def open(self) -> None:
        """Listen. Clients may connect, and wait until the first step is asked for.

        Where the settings ask for port 0, `port` then says which one it is.

        Raises:
            ValueError: the address can't be listened to.
        """
        self._thread.start()
        try:
            self.port = self._wait(self._streams.open(self.settings))
        except BaseException:
            self._stop()
            raise
        asyncio.run_coroutine_threadsafe(self._tell_status(), self._loop)

    def close(self, *, finished: bool, text: str) -> None:
        """Tell the clients that the server ends, and stop listening.

        Args:
            finished: whether the run is over; else clients come back later.
            text: for people.
        """
        if not self._thread.is_alive():
            self._loop.close()  # never opened
            return
        try:
            self._wait(self._streams.close(finished=finished, text=text))
        finally:
            self._stop()

    def _stop(self) -> None:
        self._wait(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def begin(self, *, run: str, step: int, head_of: HeadOf) -> None:
        """Say where the run stands, before the first step of this process.

        Args:
            run: its name, the same in each process that goes on with it.
            step: steps of the run that are done.
            head_of: returns the head that a client is to have now; called while the training
                waits in `ask_step`, from another thread.
        """
        self._requests.begin(Standing(run, uuid.uuid4().hex, step, head_of))

    def ask_step(
        self, requests: Mapping[int, pb.StepRequest], head_step: int, *, at_least: int = 0
    ) -> dict[int, Pair]:
        """Ask clients for a step, and return what came in time: query and key.

        Waits for all that are connected, at most until the deadline; at least for `min_clients`.

        Args:
            requests: by client, the same step in each.
            head_step: Head.step of the head that a client must have. Who has another one, because
                it missed a sync, is given the current one with the request.
            at_least: answers that are waited for, whatever `min_clients` says.
        """
        return self._wait(self._requests.ask_step(requests, head_step, at_least=at_least))

    def send_gradients(
        self, step: int, gradients: Mapping[int, Floats], *, sync_after: bool
    ) -> None:
        """Send clients the gradients of their queries, (b or 2b, c, h, w) each."""
        self._wait(self._requests.send_gradients(step, gradients, sync_after=sync_after))

    def collect_weights(self) -> dict[int, Pair]:
        """Return the weights behind a step sent with `sync_after`, as far as they come in time."""
        return self._wait(self._requests.collect_weights())

    def give_heads(self, heads: Mapping[int, pb.Head]) -> None:
        """Send what a sync gives to clients that sent their weights."""
        self._wait(self._requests.give_heads(heads))

    def keep(self, step: int) -> None:
        """Have the connected clients keep their state, and wait until they have.

        Args:
            step: steps of the run that are done.
        """
        self._wait(self._requests.keep(step))

    @property
    def num_connected(self) -> int:
        """Clients that are connected."""
        return len(self._streams.by_client)

    def num_images(self, client: int) -> int | None:
        """Return how many images a connected client holds; None of another."""
        stream = self._streams.by_client.get(client)
        return None if stream is None else stream.hello.num_images

    def figures(self) -> dict[str, float]:
        """Return what the loggers get, by name; sums over the clients, since the run began."""
        total = self.ledger.total
        return {
            "edge/clients_connected": self.num_connected,
            "edge/late_steps": total.late_steps,
            "edge/lost_connections": total.lost,
            "edge/refused_messages": total.refusals,
            "edge/megabytes_up": total.up / MEGABYTE,
            "edge/megabytes_down": total.down / MEGABYTE,
        }

    async def _tell_status(self) -> None:
        steps, moment, total = 0, time.monotonic(), self.ledger.total
        while True:
            await asyncio.sleep(self.settings.status_every_seconds)
            before, total = total, self.ledger.total
            seconds = time.monotonic() - moment
            moment += seconds
            log.info(
                "%d of %d remote clients are connected, %d late answers, %d lost connections, "
                "%d refused messages; %.2f steps/s, up %.2f MB/s, down %.2f MB/s",
                self.num_connected,
                len(self.clients),
                total.late_steps,
                total.lost,
                total.refusals,
                (self._requests.steps - steps) / seconds,
                (total.up - before.up) / seconds / MEGABYTE,
                (total.down - before.down) / seconds / MEGABYTE,
            )
            steps = self._requests.steps

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C: nobody waits for the answer any more
            future.cancel()
            raise


async def _cancel_others() -> None:
    """End what still runs in the loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
