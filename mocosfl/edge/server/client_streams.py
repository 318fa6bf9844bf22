"""The server's gRPC streams: listens, moves messages, and knows which clients are connected.

Everything here runs in the thread of one event loop. `Admission` decides who is let in, and a
client's `ClientRequests` checks what it says. `Listener` hears of each change.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from mocosfl.config.edge import EdgeConfig
from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.credentials import Credentials
from mocosfl.edge.server.admission import Admission, Standing, welcome_to
from mocosfl.edge.server.client_requests import ClientRequests
from mocosfl.edge.server.client_settings import RemoteClient
from mocosfl.edge.server.traffic_ledger import Ledger
from mocosfl.edge.wire import Refusal

log = logging.getLogger(__name__)

# A connection that has not shaken hands by then is closed, so is a stream without a Hello.
HELLO_SECONDS = 10.0
GOODBYE_SECONDS = 5.0  # for clients to hear that the server ends


class Listener(Protocol):
    """What hears of answers, and of clients that come and go: `PoolRequests`."""

    def deliver(self, client: int, kind: str, answer: Any) -> None:
        """Take a client's answer; None where there is none to be had."""

    def left(self, client: int) -> None:
        """Take note that a client is gone."""

    def joined(self, client: int) -> None:
        """Take note that a client has said Hello."""


@dataclass(eq=False)
class ClientStream:
    """A connected client: what it is asked, and how its stream ends."""

    requests: ClientRequests
    hello: pb.Hello
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # something to send, or the end
    leave: tuple[grpc.StatusCode, str] | None = None  # set: the stream is to be ended so

    def end(self, code: grpc.StatusCode, text: str) -> None:
        """Have the stream end once all is sent."""
        self.leave = self.leave or (code, text)
        self.changed.set()


class ClientStreams:
    """Lets clients in, moves their messages, and forgets them when they go."""

    def __init__(
        self,
        clients: Mapping[int, RemoteClient],
        ledger: Ledger,
        listener: Listener,
        *,
        credentials: Credentials | None,
        max_refusals: int,
    ) -> None:
        """Keep the settings.

        Args:
            clients: the remote clients by id.
            ledger: their accounts.
            listener: hears of answers, and of clients that come and go.
            credentials: of the server; None for plain text, where a client is who it says.
            max_refusals: messages of a client that are refused before it is disconnected for the
                life of this process.
        """
        self.clients, self.ledger, self.listener = clients, ledger, listener
        self.credentials, self.max_refusals = credentials, max_refusals
        self._admission = Admission(
            clients,
            ledger,
            with_certificates=credentials is not None,
            max_refusals=max_refusals,
        )
        self.by_client: dict[int, ClientStream] = {}
        self._server: grpc.aio.Server | None = None
        self._closing = False

    async def open(self, settings: EdgeConfig) -> int:
        """Listen, and return the port.

        Raises:
            ValueError: the address can't be listened to.
        """
        self._server = grpc.aio.server(options=_options(settings.keepalive_seconds))
        handler: Any = grpc.stream_stream_rpc_method_handler(self._train)
        service, method = wire.METHOD.strip("/").split("/")
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        listen = settings.listen
        try:
            if self.credentials is None:
                port = self._server.add_insecure_port(listen)
            else:
                port = self._server.add_secure_port(listen, self.credentials.for_server())
        except RuntimeError as error:
            raise ValueError(
                f"edge.listen={listen}: can't listen there, the port is taken or the address is "
                "not this machine's; choose another one, or end the other server"
            ) from error
        await self._server.start()
        return port

    async def close(self, *, finished: bool, text: str) -> None:
        """Tell the clients that the server ends, and stop listening."""
        self._closing = True
        for stream in self.by_client.values():
            stream.requests.goodbye(finished=finished, text=text)
            stream.end(grpc.StatusCode.OK, "")
        if self._server is not None:
            await self._server.stop(GOODBYE_SECONDS)

    def let_in(self, standing: Standing) -> None:
        """Welcome those that have said Hello; call it while the training waits."""
        for client, stream in self.by_client.items():
            if stream.requests.given >= 0:
                continue
            settings = self.clients[client].settings
            welcome, given = welcome_to(client, settings, stream.hello, standing)
            stream.requests.welcome(welcome, given)

    def free(self) -> Iterator[tuple[int, ClientStream]]:
        """Yield the clients that may be asked something."""
        return ((c, stream) for c, stream in self.by_client.items() if stream.requests.idle)

    async def _train(self, _: Any, context: Any) -> None:
        """Serve one client's stream, from its Hello to its end."""
        stream = await self._receive(context)
        reading = asyncio.create_task(self._read(stream, context))
        try:
            await self._write(stream, context)
        finally:
            reading.cancel()
            self._forget(stream)

    async def _receive(self, context: Any) -> ClientStream:
        try:
            data = await asyncio.wait_for(context.read(), HELLO_SECONDS)
        except TimeoutError:
            words = f"no Hello within {HELLO_SECONDS:g} s"
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, words)
        try:
            if self._closing:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server ends")
            client, hello = self._admission.admit(data, context)
        except Refusal as refusal:
            log.warning("a connection from %s is refused: %s", context.peer(), refusal)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(refusal))
        return self._register(client, hello, num_bytes=len(data))

    def _register(self, client: int, hello: pb.Hello, *, num_bytes: int) -> ClientStream:
        old = self.by_client.get(client)
        if old is not None:  # a connection that the client has lost, and we not yet
            log.info("client %d: has connected anew", client)
            # Whoever hears this is not the client that has lost its connection, but another
            # process with the same certificate; the two would throw each other out without end.
            words = f"client {client} has connected from elsewhere; end one of the two programs"
            old.end(grpc.StatusCode.ALREADY_EXISTS, words)
            self._forget(old)
        account = self.ledger[client]
        account.connections += 1
        account.count_up("hello", [], num_bytes)
        requests = ClientRequests(
            client,
            self.clients[client].expectation,
            account,
            max_refusals=self.max_refusals,
            deliver=self.listener.deliver,
        )
        stream = ClientStream(requests, hello)
        requests.on_outbox = stream.changed.set
        self.by_client[client] = stream
        log.info("client %d: connected, %d images", client, hello.num_images)
        self.listener.joined(client)
        return stream

    def _forget(self, stream: ClientStream) -> None:
        client = stream.requests.client
        stream.requests.over = True
        if self.by_client.get(client) is not stream:
            return  # its place was taken
        del self.by_client[client]
        if not self._closing:
            self.ledger[client].lost += 1
            log.info("client %d: disconnected", client)
        self.listener.left(client)

    async def _read(self, stream: ClientStream, context: Any) -> None:
        try:
            while await self._read_one(stream, context):
                pass
        except Exception:  # a mistake of ours, or a message that we did not think of
            log.exception("client %d: can't be listened to any more", stream.requests.client)
            stream.end(grpc.StatusCode.INTERNAL, "a mistake of the server; its log says more")
        stream.end(grpc.StatusCode.OK, "")

    @staticmethod
    async def _read_one(stream: ClientStream, context: Any) -> bool:
        # A function of its own: a local of the loop above would hold on to the last message.
        try:
            data = await context.read()
        except Exception as error:  # the stream broke; gRPC's errors have no common class
            log.debug("client %d: %r", stream.requests.client, error)
            return False
        if data is grpc.aio.EOF:
            return False
        stream.requests.receive(data)
        return stream.requests.banned_for is None

    @staticmethod
    async def _write(stream: ClientStream, context: Any) -> None:
        """Send what there is to be sent, until the stream is to end."""
        requests = stream.requests
        while True:
            while requests.outbox:
                await context.write(requests.outbox.popleft())
            if requests.banned_for is not None:
                log.warning("client %d: is thrown out: %s", requests.client, requests.banned_for)
                stream.leave = (grpc.StatusCode.PERMISSION_DENIED, requests.banned_for)
            if stream.leave is not None:
                break
            await stream.changed.wait()
            stream.changed.clear()
        code, text = stream.leave
        if code is not grpc.StatusCode.OK:
            await context.abort(code, text)


def _options(keepalive_seconds: float) -> list[tuple[str, int]]:
    """Return gRPC's options: sizes, and how a dead connection is noticed.

    A silent connection is pinged every `keepalive_seconds`, and given half of that to answer. The
    HTTP/2 layer has a time-out of its own, 60 s by default, which counts where data are waiting.
    """
    interval, answer = round(1000 * keepalive_seconds), round(500 * keepalive_seconds)
    hello = round(1000 * HELLO_SECONDS)
    return [
        ("grpc.max_concurrent_streams", 4),  # of a connection, which needs one
        ("grpc.max_receive_message_length", wire.MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", wire.MAX_MESSAGE_BYTES),
        ("grpc.server_handshake_timeout_ms", hello),
        ("grpc.max_connection_idle_ms", hello),  # of one without a stream
        ("grpc.keepalive_time_ms", interval),
        ("grpc.keepalive_timeout_ms", answer),
        ("grpc.http2.ping_timeout_ms", answer),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # A client may ping while a long step keeps the server from sending anything.
        ("grpc.http2.min_ping_interval_without_data_ms", 1000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.so_reuseport", 0),  # a second server on the port is a mistake
    ]
