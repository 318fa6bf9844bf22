"""`RemoteClients` in this process, and clients on real streams that do as a test says; no torch."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
import numpy as np

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.credentials import Credentials
from mocosfl.edge.server.client_requests import Expectation
from mocosfl.edge.server.client_settings import RemoteClient
from mocosfl.edge.server.remote_clients import RemoteClients
from mocosfl.edge.wire import Floats
from tests.support.edge_federation import edge

SHAPE = (2, 1, 2, 2)  # of the smashed data: b = 2
NUM_PARAMETERS = 3
RUN = "a run"
SETTINGS = pb.Settings(batch_size=2, smashed_dtype=pb.FP32, compute_dtype=pb.FP32)


def expectation(shape: tuple[int, int, int, int] = SHAPE) -> Expectation:
    return Expectation(shape, pb.FP32, NUM_PARAMETERS, pb.FP32, align_momentum=False, frozen=False)


def tensor(value: float, shape: tuple[int, ...] = SHAPE) -> pb.Tensor:
    return wire.encode_tensor(np.full(shape, value, np.float32), pb.FP32)


def smashed(step: int, value: float = 1.0, shape: tuple[int, ...] = SHAPE) -> pb.ClientMessage:
    pair = {"query": tensor(value, shape), "key": tensor(-value, shape)}
    return pb.ClientMessage(smashed=pb.Smashed(step=step, **pair))


def weights(step: int, value: float = 1.0) -> pb.ClientMessage:
    return pb.ClientMessage(weights=pb.Weights(step=step, online=tensor(value, (NUM_PARAMETERS,))))


def head(step: int, value: float = 0.0) -> pb.Head:
    return pb.Head(step=step, online=tensor(value, (NUM_PARAMETERS,)))


def hello(**changes: Any) -> pb.ClientMessage:
    values = {"protocol": wire.PROTOCOL, "num_images": 5, **changes}
    return pb.ClientMessage(hello=pb.Hello(**values))


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a state; fails where it does not come."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "what was waited for has not come"
        time.sleep(0.005)


class Ending(NamedTuple):
    code: grpc.StatusCode
    details: str


class Stream:
    """A client's stream; says what it is told to, in the test's thread."""

    def __init__(
        self,
        address: str,
        credentials: grpc.ChannelCredentials | None = None,
        *,
        until_there: bool = False,
    ) -> None:
        options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        options += [("grpc.max_send_message_length", -1)]
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options=options)
        else:
            self.channel = grpc.secure_channel(address, credentials, options=options)
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._in: queue.SimpleQueue[pb.ServerMessage | None] = queue.SimpleQueue()
        self.call = self.channel.stream_stream(wire.METHOD)(
            iter(self._out.get, None), wait_for_ready=until_there
        )
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for data in self.call:
                self._in.put(pb.ServerMessage.FromString(data))
        except grpc.RpcError:
            pass  # `ending` says what it was
        self._in.put(None)

    def send(self, message: pb.ClientMessage | bytes) -> None:
        data = message if isinstance(message, bytes) else message.SerializeToString()
        self._out.put(data)

    def hear(self, kind: str, seconds: float = 20.0) -> Any:
        """Return the next message, which must be of a kind."""
        message = self._in.get(timeout=seconds)
        assert message is not None, self.ending()
        assert message.WhichOneof("content") == kind, message
        return getattr(message, kind)

    def hear_any(self, seconds: float = 20.0) -> pb.ServerMessage | None:
        """Return the next message; None where the stream has ended."""
        return self._in.get(timeout=seconds)

    def ending(self, seconds: float = 20.0) -> Ending:
        """Return how the stream ended; waits for that."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the stream has not ended"
        return Ending(self.call.code(), self.call.details())

    def close(self) -> None:
        self._out.put(None)
        self.call.cancel()
        self.channel.close()
        self._thread.join()


class GoodClient(Stream):
    """Answers what it is asked, in a thread of its own; `heard` has what the server said."""

    def __init__(
        self,
        address: str,
        client: int,
        credentials: grpc.ChannelCredentials | None = None,
        *,
        shape: tuple[int, ...] = SHAPE,
        **changes: Any,
    ) -> None:
        self.client, self.shape = client, shape
        self.heard: list[pb.ServerMessage] = []
        super().__init__(address, credentials)
        self.send(hello(client=client, **changes))

    def _listen(self) -> None:
        try:
            while True:
                self._answer(pb.ServerMessage.FromString(next(self.call)))
        except (StopIteration, grpc.RpcError):
            self._in.put(None)

    def _answer(self, message: pb.ServerMessage) -> None:
        kind = message.WhichOneof("content")
        if message.ByteSize() < wire.ENVELOPE_BYTES:  # tests look at the memory, too
            self.heard.append(message)
        if kind == "step":
            self.sync_after = message.step.sync_after
            self.send(smashed(message.step.step, 1.0 + self.client, self.shape))
        elif kind == "gradient" and self.sync_after:
            self.send(weights(message.gradient.step, 1.0 + self.client))
        elif kind == "keep":
            self.send(pb.ClientMessage(kept=pb.Kept(step=message.keep.step)))

    def told(self, kind: str) -> list[Any]:
        """Return the messages of a kind so far."""
        heard = list(self.heard)
        return [getattr(m, kind) for m in heard if m.WhichOneof("content") == kind]


class OpenRemoteClients(RemoteClients):
    """`RemoteClients` and where the run stands; the test plays the training."""

    head_step = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(self, step: int, *clients: int, sync_after: bool = False) -> dict[int, float]:
        """Ask clients for a step, all where none is named; returns the first number of each."""
        requests = {
            c: pb.StepRequest(step=step, number=step, num_rows=6, sync_after=sync_after)
            for c in clients or self.clients
        }
        answers = self.ask_step(requests, self.head_step)
        for pair in answers.values():
            assert pair.second is not None
            assert np.isfinite(pair.first).all() and np.isfinite(pair.second).all()
        return {client: float(pair.first.flat[0]) for client, pair in answers.items()}

    def send(self, step: int, *clients: int, sync_after: bool = False) -> None:
        """Send clients a gradient."""
        gradients: dict[int, Floats] = {
            c: np.ones(self.clients[c].expectation.smashed_shape, np.float32) for c in clients
        }
        self.send_gradients(step, gradients, sync_after=sync_after)

    def go(self, step: int, *clients: int, sync_after: bool = False) -> dict[int, float]:
        """Do a whole step with clients, a sync too where it is due."""
        answers = self.ask(step, *clients, sync_after=sync_after)
        self.send(step, *answers, sync_after=sync_after)
        if sync_after:
            given = self.collect_weights()
            self.head_step = step + 1
            self.give_heads({client: head(self.head_step) for client in given})
        return answers

    def is_connected(self, client: int) -> bool:
        return client in self._streams.by_client


@contextmanager
def open_remote_clients(
    num_clients: int = 3,
    *,
    credentials: Credentials | None = None,
    settings: pb.Settings = SETTINGS,
    expected: Expectation | None = None,
    step: int = 0,
    **changes: Any,
) -> Iterator[OpenRemoteClients]:
    """Listen for clients 0 .. num_clients - 1; `changes` are of `edge`."""
    own = expectation() if expected is None else expected
    values = {"start_wait_seconds": 0.0, "step_deadline_seconds": 20.0, **changes}
    remote = OpenRemoteClients(
        {client: RemoteClient(settings, own) for client in range(num_clients)},
        edge(**{"listen": "127.0.0.1:0", **values}),
        credentials,
    )
    remote.begin(run=RUN, step=step, head_of=lambda client: head(remote.head_step, client))
    remote.open()
    try:
        yield remote
    finally:
        remote.close(finished=True, text="the test is over")


@contextmanager
def closed(*streams: Stream) -> Iterator[None]:
    """Close streams behind a block."""
    try:
        yield
    finally:
        for stream in streams:
            stream.close()
