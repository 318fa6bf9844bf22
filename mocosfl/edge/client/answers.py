"""What a client answers to each message of the server, on one stream; see federation.proto.

What a client computes is behind `ClientHead` and runs in a thread, so that one process can be
many clients.

Legend: b images of a step, (c, h, w) the smashed shape of one image.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

import grpc

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.client.client_head import ClientHead
from mocosfl.edge.client.server_checks import check_given_head, check_step, check_welcome
from mocosfl.edge.client.server_connection import Ending, Retry, ServerConnection
from mocosfl.edge.client.tally import Tally
from mocosfl.edge.wire import Floats, Refusal

logger = logging.getLogger(__name__)

WELCOME_SECONDS = 120.0  # in which the server must answer Hello

_NOT_WANTED = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.ALREADY_EXISTS,
)
_P = ParamSpec("_P")
_T = TypeVar("_T")


class NotWanted(ValueError):
    """The server refuses this client for good; the message is the server's."""


class Lost(ConnectionError):
    """The stream is over before the run is."""


class _Waiting(NamedTuple):
    """A step whose gradient is to come."""

    step: int
    sync_after: bool


class Answerer:
    """Answers the server on one stream, from Hello to its end."""

    def __init__(
        self, head: ClientHead, connection: ServerConnection, tally: Tally, retry: Retry
    ) -> None:
        """Prepare to speak.

        Args:
            head: what the client runs.
            connection: entered already.
            tally: counted into.
            retry: told when the server has let the client in.
        """
        self.head, self.connection = head, connection
        self.tally, self.retry = tally, retry
        self.settings: pb.Settings | None = None  # before Welcome
        self.waiting: _Waiting | None = None

    async def run(self, hello: pb.Hello) -> None:
        """Speak until the run is finished; raises `Lost` where the stream ends before."""
        head = self.head
        hello.incarnation, hello.head_step = head.incarnation, head.head_step
        del hello.kept[:]
        hello.kept.extend(head.kept)
        await self._send(pb.ClientMessage(hello=hello))
        try:
            async with asyncio.timeout(WELCOME_SECONDS):
                data = await self.connection.read()
        except TimeoutError:
            raise Lost(f"the server has not answered for {WELCOME_SECONDS:g} s") from None
        try:
            going_on = await self._hear(data)
            del data
            while going_on:
                going_on = await self._turn()
        finally:
            self._leave_step()
        await self.connection.part()

    async def _turn(self) -> bool:
        # In a function of its own: a local of `run` would keep each message until the next.
        return await self._hear(await self.connection.read())

    async def _hear(self, data: bytes | None) -> bool:
        """Do what a message says; False where the run is finished."""
        if data is None:
            ending = await self.connection.ending()
            raise _lost(ending, encrypted=self.connection.encrypted)
        message = wire.parse_server_message(data)
        kind = message.WhichOneof("content")
        self.tally.bytes_down[str(kind)] += len(data)
        if kind == "goodbye":
            return self._goodbye(message.goodbye)
        if kind == "refused":
            self._refused(message.refused)
        elif kind == "welcome":
            await self._welcome(message.welcome)
        elif self.settings is None:
            raise Refusal(f"{kind} before Welcome")
        elif kind == "step":
            await self._step(message.step, self.settings)
        elif kind == "gradient":
            await self._gradient(message.gradient, self.settings)
        elif kind == "head":
            await self._head(message.head, self.settings)
        elif kind == "keep":
            await self._keep(message.keep)
        return True

    async def _welcome(self, welcome: pb.Welcome) -> None:
        if welcome.protocol != wire.PROTOCOL:
            raise NotWanted(
                f"the server speaks version {welcome.protocol} of the protocol and this client "
                f"{wire.PROTOCOL}; install the same version on both"
            )
        if self.settings is not None:
            raise Refusal("a second Welcome")
        check_welcome(welcome)
        await self._compute(self.head.begin, welcome)
        self.settings = welcome.settings
        self.tally.welcomes += 1
        self.retry.reset()
        how = {"go_on": "goes on", "restore_step": "goes back to a kept state"}
        start = how.get(str(welcome.WhichOneof("start")), "starts from the server's head")
        logger.info("client %d of the run %s %s", welcome.client, welcome.run, start)

    async def _step(self, request: pb.StepRequest, settings: pb.Settings) -> None:
        self._leave_step()
        check_step(request, settings)
        if request.HasField("head"):
            await self._take(request.head)
        await self._send(await self._compute(_smash, self.head, request, settings))
        self.tally.images += settings.batch_size
        if settings.frozen:
            self.tally.steps += 1
        else:
            self.waiting = _Waiting(request.step, request.sync_after)

    async def _gradient(self, gradient: pb.Gradient, settings: pb.Settings) -> None:
        waiting = self.waiting
        if waiting is None or waiting.step != gradient.step:
            raise Refusal(f"a gradient of step {gradient.step}, which this client is not in")
        await self._compute(_learn, self.head, gradient, settings)
        self.waiting = None
        self.tally.steps += 1
        if waiting.sync_after:
            await self._send(await self._compute(_weights, self.head, waiting.step, settings))

    async def _head(self, head: pb.Head, settings: pb.Settings) -> None:
        self._leave_step()
        check_given_head(head, settings)
        await self._take(head)

    async def _take(self, head: pb.Head) -> None:
        if self.head.digest:
            raise Refusal("another head, to a client with an exported one")
        await self._compute(self.head.take, head)

    async def _keep(self, keep: pb.Keep) -> None:
        self._leave_step()
        await self._compute(self.head.keep, keep.step)
        await self._send(pb.ClientMessage(kept=pb.Kept(step=keep.step)))

    def _refused(self, refused: pb.Refused) -> None:
        self.tally.refused += 1
        logger.warning(
            "the server refused a message (%d of at most %d): %s",
            refused.count,
            refused.limit,
            refused.reason,
        )

    def _goodbye(self, goodbye: pb.Goodbye) -> bool:
        if not goodbye.finished:
            raise Lost(f"the server is going away: {goodbye.text}")
        logger.info("the server says goodbye: %s", goodbye.text)
        return False

    def _leave_step(self) -> None:
        """Count a step as missed whose gradient will not come; the head takes it back itself."""
        if self.waiting is not None:
            self.tally.left_out += 1
            self.waiting = None

    async def _send(self, message: pb.ClientMessage) -> None:
        data = message.SerializeToString()
        self.tally.bytes_up[str(message.WhichOneof("content"))] += len(data)
        await self.connection.write(data)

    async def _compute(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run a function in a thread, to its end even where the client is cancelled."""
        with self.tally.computing():
            work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                # The head must not be in the middle of something when its owner looks at it.
                await asyncio.gather(work, return_exceptions=True)
                raise


def _smash(head: ClientHead, request: pb.StepRequest, settings: pb.Settings) -> pb.ClientMessage:
    query, key = head.smash(request)
    dtype = settings.smashed_dtype
    smashed = pb.Smashed(
        step=request.step,
        query=_encode(query, dtype, "smashed data"),
        key=_encode(key, dtype, "smashed data"),
    )
    return pb.ClientMessage(smashed=smashed)


def _learn(head: ClientHead, gradient: pb.Gradient, settings: pb.Settings) -> None:
    shape, dtype = wire.smashed_shape(settings), settings.smashed_dtype
    head.learn(wire.decode_tensor(gradient.query, dtype=dtype, shape=shape, name="gradient"))


def _weights(head: ClientHead, step: int, settings: pb.Settings) -> pb.ClientMessage:
    online, momentum = head.weights()
    weights = pb.Weights(step=step, online=_encode(online, settings.compute_dtype, "weights"))
    if momentum is not None:
        weights.momentum.CopyFrom(_encode(momentum, settings.compute_dtype, "weights"))
    return pb.ClientMessage(weights=weights)


def _encode(values: Floats, dtype: int, name: str) -> pb.Tensor:
    try:
        return wire.encode_tensor(values, dtype)
    except ValueError as error:
        raise ValueError(
            f"the {name} of this client's head can't be sent ({error}): its training has diverged; "
            "use a smaller optimizer.client_lr for the run"
        ) from error


def _lost(ending: Ending, *, encrypted: bool) -> Exception:
    """Return what the end of a stream means."""
    if ending.code in _NOT_WANTED:
        return NotWanted(f"the server refuses this client: {ending.details}")
    if ending.code is grpc.StatusCode.OK:
        return Lost("the server has ended the stream")
    hint = ""
    if encrypted and ending.code is grpc.StatusCode.UNAVAILABLE:
        # So ends a refused handshake too, and the details do not always say that it was one.
        hint = "; if a server listens there, look at the certificates: authority, dates, its name"
    return Lost(f"no connection to the server ({ending.code.name}: {ending.details}){hint}")
