"""A client's stream to the server, and how long it waits before it tries again. No torch."""

import asyncio
import logging
import random
import time
from typing import Any, NamedTuple, Self

import grpc.aio

from mocosfl.edge import wire
from mocosfl.system.addresses import parse_address

logger = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
# Messages read ahead while the head computes. The server asks one thing at a time, so there
# are hardly ever two; a bound, because a faulty server might send without end.
_MAX_AHEAD = 4
_PARTING_SECONDS = 2.0  # for the server to close a stream that is over

_OPTIONS = (
    # A dead peer is noticed within 15 s; without ping_timeout a frozen one only after 63 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", wire.MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", wire.MAX_MESSAGE_BYTES),
    # The waiting between tries is ours, see `Retry`; gRPC's own must not come on top of it.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 10_000),  # also the time a try may take to connect
    ("grpc.max_reconnect_backoff_ms", 10_000),
    # Several clients in one process have a connection each, as on devices of their own.
    ("grpc.use_local_subchannel_pool", 1),
)


class ServerAddress(NamedTuple):
    """Where the server is, and how it is spoken to."""

    address: str  # host:port
    credentials: grpc.ChannelCredentials | None = None  # None: in the clear

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine."""
        return parse_address(self.address).is_loopback


class Ending(NamedTuple):
    """How a stream ended."""

    code: grpc.StatusCode
    details: str


class ServerConnection:
    """One stream, raw messages in and out; a context manager on a channel of its own."""

    def __init__(self, server: ServerAddress) -> None:
        """Prepare the stream.

        Args:
            server: that is called on entering.
        """
        self.encrypted = server.credentials is not None
        options: list[tuple[str, Any]] = list(_OPTIONS)
        if server.is_loopback:
            options.append(("grpc.enable_http_proxy", 0))
        if server.credentials is None:
            self._channel = grpc.aio.insecure_channel(server.address, options=options)
        else:
            self._channel = grpc.aio.secure_channel(
                server.address, server.credentials, options=options
            )
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue(_MAX_AHEAD)

    async def __aenter__(self) -> Self:
        """Call the server; whether it is there, the first `read` tells."""
        self._call: grpc.aio.StreamStreamCall[bytes, bytes]
        self._call = self._channel.stream_stream(wire.METHOD)()
        self._reader = asyncio.create_task(self._read_ahead())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the stream and its channel."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._call.cancel()
        await self._channel.close()

    async def write(self, data: bytes) -> None:
        """Send a message; on a broken stream nothing happens, and `read` comes to its end."""
        try:
            await self._call.write(data)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            # What the server had said before may still lie unread, a farewell for example.
            logger.debug("not sent: %s", error)

    async def read(self) -> bytes | None:
        """Return the next message; None where the stream has ended, see `ending`."""
        return await self._incoming.get()

    async def ending(self) -> Ending:
        """Return how the stream ended; waits for that."""
        return Ending(await self._call.code(), await self._call.details() or "")

    async def part(self) -> None:
        """End the stream from this side, and give the server a moment to do so too."""
        try:
            async with asyncio.timeout(_PARTING_SECONDS):
                await self._call.done_writing()
                await self._call.code()
        except (TimeoutError, grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            logger.debug("parted: %r", error)

    async def _read_ahead(self) -> None:
        # Read while the head computes: a farewell is heard though the next write would fail.
        while await self._forward_one():
            pass
        await self._incoming.put(None)

    async def _forward_one(self) -> bool:
        # In a function of its own, so that no message outlives its handling in a local variable.
        try:
            data = await self._call.read()
        except grpc.aio.AioRpcError:
            return False  # `ending` says what it was
        if not isinstance(data, bytes):
            return False  # EOF
        await self._incoming.put(data)
        return True


class GaveUp(ConnectionError):
    """The server could not be reached for as long as was allowed."""


class Retry:
    """Waits between tries: 0.5 s, doubled up to 30 s, shortened by up to half at random.

    The randomness keeps a thousand clients from coming back at the same moment.
    """

    def __init__(self, give_up_after: float | None = None) -> None:
        """Begin to be without the server.

        Args:
            give_up_after: seconds without the server after which `wait` raises; None: never.
        """
        self.give_up_after = give_up_after
        self._generator = random.Random()  # seeded by the system: no two clients wait alike
        self.reset()

    def reset(self) -> None:
        """Note that the server has let the client in."""
        self._wait, self._reason = FIRST_WAIT_SECONDS, ""
        self._there, self._since = True, time.monotonic()

    def note_end(self) -> None:
        """Note that a stream is over; a client that was let in has been with the server so far."""
        if self._there:
            self._there, self._since = False, time.monotonic()

    async def wait(self, reason: str) -> None:
        """Wait before the next try.

        Args:
            reason: why the last one failed; logged where it is another than before.

        Raises:
            GaveUp: the server has been away for too long.
        """
        if reason != self._reason:
            logger.warning("%s; trying again", reason)
        self._reason = reason
        wait = self._wait * self._generator.uniform(0.5, 1.0)
        self._wait = min(2 * self._wait, LONGEST_WAIT_SECONDS)
        self.note_end()
        if self.give_up_after is not None:
            left = self._since + self.give_up_after - time.monotonic()
            if left <= 0:
                raise GaveUp(f"gave up after {self.give_up_after:g} s without the server: {reason}")
            wait = min(wait, left)
        await asyncio.sleep(wait)
