"""Clients' messages, whole and damaged: what a decoder has to survive."""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire

ROWS = (2, 4, 3, 3)  # of the smashed tensors here
NUM_PARAMETERS = 50  # of the weights here

Mutation = Callable[[random.Random, bytes], bytes]


def whole_messages(seed: int = 0) -> dict[str, bytes]:
    """Return a message of each content, and of each type where it carries tensors."""
    numbers = np.random.default_rng(seed)
    query, key = numbers.standard_normal((2, *ROWS))
    online, momentum = 1e-3 * numbers.standard_normal((2, NUM_PARAMETERS))
    kept = [pb.KeptState(run="a run", step=step, head_step=step // 2) for step in (10, 20)]
    hello = pb.Hello(
        protocol=wire.PROTOCOL,
        client=3,
        num_images=50,
        head_digest="0f" * 32,
        incarnation="a server",
        head_step=20,
        kept=kept,
    )
    messages = {
        "hello": pb.ClientMessage(hello=hello),
        "kept": pb.ClientMessage(kept=pb.Kept(step=20)),
    }
    for name, dtype in wire.DTYPES.items():
        smashed = pb.Smashed(
            step=7, query=wire.encode_tensor(query, dtype), key=wire.encode_tensor(key, dtype)
        )
        weights = pb.Weights(
            step=7,
            online=wire.encode_tensor(online, dtype),
            momentum=wire.encode_tensor(momentum, dtype),
        )
        messages[f"smashed {name}"] = pb.ClientMessage(smashed=smashed)
        messages[f"weights {name}"] = pb.ClientMessage(weights=weights)
    return {name: message.SerializeToString() for name, message in messages.items()}


def varint(number: int) -> bytes:
    """Return a number as protobuf writes lengths and tags."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def insert(rng: random.Random, data: bytes) -> bytes:
    place = rng.randint(0, len(data))
    return data[:place] + rng.randbytes(rng.randint(1, 20)) + data[place:]


def repeat_part(rng: random.Random, data: bytes) -> bytes:
    first, last = sorted(rng.choices(range(len(data) + 1), k=2))
    return data[:last] + data[first:last] + data[last:]


def repeat_fields(rng: random.Random, data: bytes) -> bytes:
    """Say the content again, whole or from some field of it on; protobuf merges the two."""
    message = pb.ClientMessage.FromString(data)
    name = message.WhichOneof("content")
    content = getattr(message, name)
    part = type(content)()
    chosen, value = rng.choice(content.ListFields())
    if chosen.message_type is not None and not chosen.is_repeated:
        getattr(part, chosen.name).CopyFrom(value)
    else:
        part.CopyFrom(content)
    number = message.DESCRIPTOR.fields_by_name[name].number
    return data + field(number, part.SerializeToString())


def claim_length(rng: random.Random, data: bytes) -> bytes:
    """Put a length of up to 2^64 in the place of a byte, most often where a real one stands."""
    place = rng.randint(1, min(12, len(data) - 1))
    return data[:place] + varint(2 ** rng.randint(7, 64) - 1) + data[place + 1 :]


def random_bytes(rng: random.Random, data: bytes) -> bytes:
    return rng.randbytes(rng.randint(0, len(data)))


def lie(rng: random.Random, data: bytes) -> bytes:
    """Change what a tensor says of itself, or its numbers' bits; a message in perfect form."""
    message = pb.ClientMessage.FromString(data)
    tensors = [part for part in (message.smashed.query, message.smashed.key) if part.data]
    tensors += [part for part in (message.weights.online, message.weights.momentum) if part.data]
    if not tensors:
        return data
    tensor = rng.choice(tensors)
    what = rng.choice(["dtype", "shape", "scale", "data", "numbers"])
    if what == "dtype":
        tensor.dtype = rng.choice([0, 1, 2, 3, 4, 99, -1])
    elif what == "shape":
        many = [1] * 2000
        lies = [[], [0], [1], [2**32 - 1] * 4, many, [*tensor.shape, 1], list(tensor.shape)[::-1]]
        tensor.shape[:] = rng.choice(lies)
    elif what == "scale":
        tensor.scale = rng.choice([0.0, -1.0, np.inf, -np.inf, np.nan, 5e-324, 1e308, 2.0])
    elif what == "data":
        tensor.data = rng.randbytes(rng.choice([0, 1, 1000, 10_000]))
    else:
        tensor.data = rng.randbytes(len(tensor.data))
    changed: bytes = message.SerializeToString()
    return changed


MUTATIONS: Mapping[str, Mutation] = {
    "flip bits": flip_bits,
    "truncate": truncate,
    "insert": insert,
    "repeat part": repeat_part,
    "repeat fields": repeat_fields,
    "claim length": claim_length,
    "random bytes": random_bytes,
    "lie": lie,
}


def mutated_messages(number: int, *, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield damaged messages, each with what it was and how it was damaged."""
    rng = random.Random(seed)
    whole: list[tuple[str, bytes]] = list(whole_messages(seed).items())
    names: list[Any] = list(MUTATIONS)
    for index in range(number):
        content, data = rng.choice(whole)
        mutation = names[index % len(names)]
        yield f"{index}: {content}, {mutation}", MUTATIONS[mutation](rng, data)
