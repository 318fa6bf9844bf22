"""Servers that follow a script, and what they say, for tests of the client's side."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.client.server_connection import ServerAddress

SHAPE = (2, 1, 2, 2)  # of the smashed data: b = 2
SETTINGS = pb.Settings(
    seed=1,
    image_size=8,
    mean=[0.5] * 3,
    std=[0.2] * 3,
    batch_size=2,
    steps_per_round=10,
    smashed_dtype=pb.FP32,
    compute_dtype=pb.FP32,
    smashed_shape=SHAPE[1:],
    num_parameters=3,
)


def weights(value: float) -> pb.Tensor:
    return wire.encode_tensor(np.full(3, value, np.float32), pb.FP32)


def welcome(**changes: Any) -> pb.Welcome:
    start = {} if {"go_on", "restore_step"} & set(changes) else {"head": pb.Head(online=weights(1))}
    values = {"protocol": wire.PROTOCOL, "run": "r", "incarnation": "i", "client": 3}
    return pb.Welcome(**{**values, "settings": SETTINGS, **start, **changes})


def step(number: int, **changes: Any) -> pb.StepRequest:
    return pb.StepRequest(step=number, number=number, num_rows=4, learning_rate=0.1, **changes)


def gradient(number: int, value: float = 1.0) -> pb.Gradient:
    values = np.full(SHAPE, value, np.float32)
    return pb.Gradient(step=number, query=wire.encode_tensor(values, pb.FP32))


class Talk:
    """The server's end of a stream."""

    def __init__(self, context: Any) -> None:
        self.context = context

    async def hear(self) -> Any:
        """Return the content of the client's next message; None at its end."""
        data = await self.context.read()
        if data is grpc.aio.EOF:
            return None
        message = wire.parse_client_message(data, max_bytes=100_000)
        return getattr(message, str(message.WhichOneof("content")))

    async def say(self, **content: Any) -> None:
        await self.context.write(pb.ServerMessage(**content).SerializeToString())

    async def ask(self, **content: Any) -> Any:
        await self.say(**content)
        return await self.hear()

    async def let_in(self, **changes: Any) -> pb.Hello:
        hello: pb.Hello = await self.hear()
        await self.say(welcome=welcome(**changes))
        return hello

    async def finish(self) -> None:
        await self.say(goodbye=pb.Goodbye(finished=True, text="done"))


Script = Callable[[Talk], Awaitable[None]]


@asynccontextmanager
async def serving(
    *scripts: Script, port: int = 0, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[ServerAddress]:
    """Serve a script a stream, in this order; the last one is repeated."""
    left = list(scripts)

    async def handle(_: Any, context: Any) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(Talk(context))

    handler = grpc.stream_stream_rpc_method_handler(handle)
    service, method = wire.METHOD.strip("/").split("/")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    place = f"127.0.0.1:{port}"
    if credentials is None:
        bound = server.add_insecure_port(place)
    else:
        bound = server.add_secure_port(place, credentials)
    await server.start()
    try:
        yield ServerAddress(f"127.0.0.1:{bound}")
    finally:
        await server.stop(None)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(20):
            return await coroutine

    return asyncio.run(bounded())
