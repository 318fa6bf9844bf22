"""What travels between a server and its clients, checked before it is believed.

A message is protobuf (`federation.proto`); a tensor is its type, its shape and raw little-endian
numbers. Nothing that arrives is ever executed, and the shape that is expected is known to whoever
reads: a message that says anything else is refused before memory is taken for it.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from mocosfl.edge import federation_pb2 as pb

PROTOCOL = 1  # version of federation.proto; both sides must have the same
METHOD = "/mocosfl.edge.v1.Federation/Train"
MAX_MESSAGE_BYTES = 64 * 2**20  # no message of either side is larger
# What a message may need beside its tensors' numbers: names, shapes, counters.
ENVELOPE_BYTES = 4096

DTYPES = {"fp32": pb.FP32, "fp16": pb.FP16, "int8": pb.INT8, "fp64": pb.FP64}
ITEMS: dict[int, np.dtype[Any]] = {
    pb.FP32: np.dtype("<f4"),
    pb.FP16: np.dtype("<f2"),
    pb.INT8: np.dtype("i1"),
    pb.FP64: np.dtype("<f8"),
}
SCALED = (pb.FP16, pb.INT8)
INT8_MOST = 127
# All but FP64 arrive as float32: an FP16 or INT8 tensor without a value of at least its smallest
# number arrives as zeros, and FP16 may round a value above LARGEST_SENT to more than it can hold.
FLOAT32_LEAST = 2.0**-149
LARGEST_SENT = 2.0**127
# What a client may send is bounded: larger values would overflow in the server's network, or in the
# other clients' heads behind a sync, whose smashed data would then be refused in their turn.
LARGEST_SMASHED = 1e6
LARGEST_WEIGHT = 1e3
# How messages begin that may be larger than ENVELOPE_BYTES: tags of length-delimited fields.
LARGE_TAGS = tuple(
    number << 3 | 2
    for number in (pb.ClientMessage.SMASHED_FIELD_NUMBER, pb.ClientMessage.WEIGHTS_FIELD_NUMBER)
)

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class Refusal(ValueError):
    """A message that is not accepted; says what was expected and what came."""


def encode_tensor(values: npt.NDArray[Any], dtype: int) -> pb.Tensor:
    """Write a tensor of finite numbers.

    Args:
        values: any shape, float32 or float64.
        dtype: what travels. FP16 and INT8 are rounded to the nearest, with one scale for the whole
            tensor: without it FP16 would lose gradients below 6e-8 and overflow above 65504.

    Raises:
        ValueError: a value is not finite, or too large for what travels.
    """
    values = np.asarray(values)
    largest = float(np.abs(values).max(initial=0.0))
    if not math.isfinite(largest):
        raise ValueError("a tensor with NaN or infinite values can't be sent")
    if dtype != pb.FP64 and largest >= LARGEST_SENT:
        raise ValueError(
            f"a tensor with a value of {largest:.3g} can't be sent as {_dtype_name(dtype)}, "
            f"only values below {LARGEST_SENT:.3g}"
        )
    scale = _scale(largest, dtype)
    # In float64: divided in float32, a small scale would lose its digits or be 0.
    numbers = values if scale == 1 else values / np.float64(scale)
    if dtype == pb.INT8:
        numbers = np.rint(numbers)
    data = np.ascontiguousarray(numbers.astype(ITEMS[dtype])).tobytes()
    return pb.Tensor(dtype=dtype, shape=values.shape, data=data, scale=scale)  # type: ignore[arg-type]


def _scale(largest: float, dtype: int) -> float:
    if dtype not in SCALED or largest < FLOAT32_LEAST:
        return 1.0
    if dtype == pb.INT8:
        return largest / INT8_MOST
    return 2.0 ** math.frexp(largest)[1]  # a power of two rounds nothing


def decode_tensor(
    tensor: pb.Tensor, *, dtype: int, shape: Sequence[int], name: str, largest: float = math.inf
) -> Floats:
    """Read a tensor that must have the given type and shape, and finite numbers.

    Args:
        tensor: from a message.
        dtype: that both sides have agreed on.
        shape: that is expected.
        name: of the tensor, for messages.
        largest: absolute value that is accepted.

    Returns:
        float64 for FP64, else float32; of FP32 and FP64 a read-only array.

    Raises:
        Refusal: it is anything else.
    """
    _check_form(tensor, dtype=dtype, shape=shape, name=name)
    numbers = np.frombuffer(tensor.data, ITEMS[dtype]).reshape(tuple(shape))
    if dtype in SCALED:
        # Numbers that overflow and NaN of either sort are refused below, not warned of.
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = (numbers * np.float64(tensor.scale)).astype(np.float32)
    # The sum of finite numbers may overflow, so each is looked at.
    if not bool(np.isfinite(numbers).all()):
        raise Refusal(f"{name}: has NaN or infinite values")
    found = float(np.abs(numbers).max(initial=0.0))
    if found > largest:
        raise Refusal(f"{name}: values of at most {largest:g} expected, {found:g} came")
    return numbers


def _check_form(tensor: pb.Tensor, *, dtype: int, shape: Sequence[int], name: str) -> None:
    if tensor.dtype != dtype:
        raise Refusal(f"{name}: {_dtype_name(dtype)} expected, {_dtype_name(tensor.dtype)} came")
    if len(tensor.shape) != len(shape) or tuple(tensor.shape) != tuple(shape):
        came = tuple(tensor.shape[:8])
        raise Refusal(f"{name}: shape {tuple(shape)} expected, {came} came")
    num_bytes = num_tensor_bytes(dtype, shape)
    if len(tensor.data) != num_bytes:
        raise Refusal(f"{name}: {num_bytes} bytes expected, {len(tensor.data)} came")
    scale = tensor.scale
    if dtype in SCALED and not (math.isfinite(scale) and scale > 0):
        raise Refusal(f"{name}: a scale above 0 expected, {scale} came")
    if dtype not in SCALED and scale != 1:
        raise Refusal(f"{name}: scale 1 expected, {scale} came")


def _dtype_name(dtype: int) -> str:
    names: list[str] = [value.name for value in pb.Dtype.DESCRIPTOR.values if value.number == dtype]
    return names[0] if names else f"type {dtype}"


def smashed_shape(settings: pb.Settings) -> tuple[int, int, int, int]:
    """Return the shape of what a client sends up in a step: (b or 2b, c, h, w)."""
    rows = settings.batch_size * (2 if settings.both_views else 1)
    channels, height, width = settings.smashed_shape
    return rows, channels, height, width


def num_tensor_bytes(dtype: int, shape: Sequence[int]) -> int:
    """Return the bytes of a tensor's numbers."""
    return math.prod(shape) * ITEMS[dtype].itemsize


def parse_client_message(data: bytes, *, max_bytes: int) -> pb.ClientMessage:
    """Read a client's message.

    Args:
        data: as it came.
        max_bytes: of the largest message that is expected.

    Raises:
        Refusal: larger, not a message, or an empty one.
    """
    if len(data) > max_bytes:
        raise Refusal(f"a message of {len(data)} bytes, at most {max_bytes} are expected")
    if len(data) > ENVELOPE_BYTES and not _is_one_large_field(data):
        raise Refusal(f"a message of {len(data)} bytes that is not Smashed or Weights alone")
    return _parse(pb.ClientMessage(), data)


def parse_server_message(data: bytes) -> pb.ServerMessage:
    """Read a message of the server.

    Raises:
        Refusal: not a message, or an empty one.
    """
    return _parse(pb.ServerMessage(), data)


_Message = TypeVar("_Message", pb.ClientMessage, pb.ServerMessage)


def _parse(message: _Message, data: bytes) -> _Message:
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise Refusal(f"{len(data)} bytes that are no message") from error
    if message.WhichOneof("content") is None:
        raise Refusal("a message without content")
    return message


def _is_one_large_field(data: bytes) -> bool:
    """Return whether a message is Smashed or Weights from its first byte to its last.

    Anything else may cost memory out of proportion: a Hello of 2 bytes for each KeptState takes 30
    times its size.
    """
    if data[0] not in LARGE_TAGS:
        return False
    length = 0
    for index, byte in enumerate(data[1:6]):  # 5 bytes of 7 bits hold any length that is allowed
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return len(data) == 2 + index + length
    return False


def head_digest(weights: npt.NDArray[np.float32]) -> str:
    """Return the SHA-256 of a head, (num_parameters,) in the order of its named_parameters()."""
    return hashlib.sha256(np.ascontiguousarray(weights, ITEMS[pb.FP32]).tobytes()).hexdigest()
