"""The server's gRPC streams: who is connected.

Everything here runs in the thread of one event loop. What a client says is checked by its
`Dialogue`; whoever asks the questions is told of each change through `Listener`.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import grpc

from mocosfl.config.edge import EdgeConfig
from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.credentials import Credentials
from mocosfl.edge.identity import client_of
from mocosfl.edge.server.dialogue import Dialogue, Expectation
from mocosfl.edge.server.greeting import HeadOf, check_hello, check_kind, choose_start
from mocosfl.edge.server.ledger import Ledger
from mocosfl.edge.wire import Refusal

log = logging.getLogger(__name__)

# A connection that has not shaken hands by then is closed, so is a stream without a Hello.
HELLO_SECONDS = 10.0

GOODBYE_SECONDS = 5.0  # for clients to hear that the server ends


class Guest(NamedTuple):
    """How the run greets a client."""

    settings: pb.Settings
    expectation: Expectation


class Standing(NamedTuple):
    """Where a run stands when this server process takes its first step."""

    run: str  # its name, the same in each process that goes on with it
    incarnation: str  # of this process
    step: int  # steps that are done
    head_of: HeadOf  # the head that a client is to have now; the training must stand still


class Listener(Protocol):
    """Who asks the questions."""

    def deliver(self, client: int, kind: str, answer: Any) -> None:
        """Take a client's answer; None where there is none to be had."""

    def left(self, client: int) -> None:
        """Take note that a client is gone."""

    def joined(self, client: int) -> None:
        """Take note that a client has said Hello."""


@dataclass(eq=False)
class Seat:
    """A connected client."""

    dialogue: Dialogue
    hello: pb.Hello
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # something to send, or the end
    leave: tuple[grpc.StatusCode, str] | None = None  # set: the stream is to be ended so

    def end(self, code: grpc.StatusCode, text: str) -> None:
        """Have the stream end once all is sent."""
        self.leave = self.leave or (code, text)
        self.changed.set()


class Streams:
    """Lets clients in, moves their messages, and forgets them when they go."""

    def __init__(
        self,
        guests: Mapping[int, Guest],
        ledger: Ledger,
        listener: Listener,
        *,
        credentials: Credentials | None,
        max_refusals: int,
    ) -> None:
        """Keep the settings.

        Args:
            guests: the remote clients by id.
            ledger: their accounts.
            listener: who asks the questions.
            credentials: of the server; None for plain text, where a client is who it says.
            max_refusals: messages of a client that are refused before it is disconnected for the
                life of this process.
        """
        self.guests, self.ledger, self.listener = guests, ledger, listener
        self.credentials, self.max_refusals = credentials, max_refusals
        self.seats: dict[int, Seat] = {}
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
        for seat in self.seats.values():
            seat.dialogue.goodbye(finished=finished, text=text)
            seat.end(grpc.StatusCode.OK, "")
        if self._server is not None:
            await self._server.stop(GOODBYE_SECONDS)

    def let_in(self, standing: Standing) -> None:
        """Welcome those that have said Hello; the training must stand still."""
        for client, seat in self.seats.items():
            if seat.dialogue.given >= 0:
                continue
            welcome = pb.Welcome(
                protocol=wire.PROTOCOL,
                run=standing.run,
                incarnation=standing.incarnation,
                client=client,
                settings=self.guests[client].settings,
            )
            given = choose_start(
                welcome, seat.hello, resumed_step=standing.step, head_of=standing.head_of
            )
            seat.dialogue.welcome(welcome, given)

    def free(self) -> Iterator[tuple[int, Seat]]:
        """Yield the clients that may be asked something."""
        return ((client, seat) for client, seat in self.seats.items() if seat.dialogue.idle)

    async def _train(self, _: Any, context: Any) -> None:
        """Serve one client's stream, from its Hello to its end."""
        seat = await self._receive(context)
        reading = asyncio.create_task(self._read(seat, context))
        try:
            await self._write(seat, context)
        finally:
            reading.cancel()
            self._forget(seat)

    async def _receive(self, context: Any) -> Seat:
        try:
            data = await asyncio.wait_for(context.read(), HELLO_SECONDS)
        except TimeoutError:
            words = f"no Hello within {HELLO_SECONDS:g} s"
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, words)
        try:
            if self._closing:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server ends")
            client, hello = self._who(context, data)
        except Refusal as refusal:
            log.warning("a connection from %s is refused: %s", context.peer(), refusal)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(refusal))
        return self._sit_down(client, hello, num_bytes=len(data))

    def _who(self, context: Any, data: Any) -> tuple[int, pb.Hello]:
        """Return which client a stream is, and its Hello.

        Raises:
            Refusal: it is none of this run's, or not who it says.
        """
        if data is grpc.aio.EOF:
            raise Refusal("the stream ended without a Hello")
        message = wire.parse_client_message(data, max_bytes=wire.ENVELOPE_BYTES)
        if message.WhichOneof("content") != "hello":
            raise Refusal("a stream begins with Hello")
        hello = message.hello
        client = check_hello(hello, self._certified(context), self.guests)
        check_kind(hello, self.guests[client].settings)
        if self.ledger[client].strikes >= self.max_refusals:
            raise Refusal(
                f"client {client} was disconnected after {self.max_refusals} messages that were "
                "refused; start the server again to let it in"
            )
        return client, hello

    def _certified(self, context: Any) -> int | None:
        if self.credentials is None:
            return None
        name = b"".join(context.auth_context().get("x509_common_name", [])).decode(errors="replace")
        client = client_of(name)
        if client is None:
            raise Refusal(f"its certificate is of {name!r}, which is no client")
        return client

    def _sit_down(self, client: int, hello: pb.Hello, *, num_bytes: int) -> Seat:
        old = self.seats.get(client)
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
        dialogue = Dialogue(
            client,
            self.guests[client].expectation,
            account,
            max_refusals=self.max_refusals,
            deliver=self.listener.deliver,
        )
        seat = Seat(dialogue, hello)
        dialogue.on_outbox = seat.changed.set
        self.seats[client] = seat
        log.info("client %d: connected, %d images", client, hello.num_images)
        self.listener.joined(client)
        return seat

    def _forget(self, seat: Seat) -> None:
        client = seat.dialogue.client
        seat.dialogue.over = True
        if self.seats.get(client) is not seat:
            return  # its place was taken
        del self.seats[client]
        if not self._closing:
            self.ledger[client].lost += 1
            log.info("client %d: disconnected", client)
        self.listener.left(client)

    async def _read(self, seat: Seat, context: Any) -> None:
        try:
            while await self._read_one(seat, context):
                pass
        except Exception:  # a mistake of ours, or a message that we did not think of
            log.exception("client %d: can't be listened to any more", seat.dialogue.client)
            seat.end(grpc.StatusCode.INTERNAL, "a mistake of the server; its log says more")
        seat.end(grpc.StatusCode.OK, "")

    @staticmethod
    async def _read_one(seat: Seat, context: Any) -> bool:
        # A function of its own: a local of the loop above would hold on to the last message.
        try:
            data = await context.read()
        except Exception as error:  # the stream broke; gRPC's errors have no common class
            log.debug("client %d: %r", seat.dialogue.client, error)
            return False
        if data is grpc.aio.EOF:
            return False
        seat.dialogue.receive(data)
        return seat.dialogue.banned_for is None

    @staticmethod
    async def _write(seat: Seat, context: Any) -> None:
        """Send what there is to be sent, until the stream is to end."""
        dialogue = seat.dialogue
        while True:
            while dialogue.outbox:
                await context.write(dialogue.outbox.popleft())
            if dialogue.banned_for is not None:
                log.warning("client %d: is thrown out: %s", dialogue.client, dialogue.banned_for)
                seat.leave = (grpc.StatusCode.PERMISSION_DENIED, dialogue.banned_for)
            if seat.leave is not None:
                break
            await seat.changed.wait()
            seat.changed.clear()
        code, text = seat.leave
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
