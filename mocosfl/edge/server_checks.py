"""What a client checks of the server's messages before it works on them."""

import math

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.wire import Refusal

# Far above any round's pool; what a client draws for a step grows with it.
_MAX_ROWS = 2**20
_SMASHED_DTYPES = tuple(wire.ITEMS)
_COMPUTE_DTYPES = (pb.FP32, pb.FP64)


def smashed_shape(settings: pb.Settings) -> tuple[int, ...]:
    """Return the shape of what a client sends up in a step: (b or 2b, c, h, w)."""
    rows = settings.batch_size * (2 if settings.both_views else 1)
    return (rows, *settings.smashed_shape)


def check_welcome(welcome: pb.Welcome) -> None:
    """Check the settings of a run and the head that comes with them.

    Raises:
        Refusal: a setting is missing or out of its range.
    """
    settings = welcome.settings
    positive = ("image_size", "batch_size", "steps_per_round", "num_parameters")
    for name in positive:
        if getattr(settings, name) < 1:
            raise Refusal(f"Settings.{name}={getattr(settings, name)}: at least 1 expected")
    if len(settings.smashed_shape) != 3 or 0 in settings.smashed_shape:
        raise Refusal(f"Settings.smashed_shape={list(settings.smashed_shape)}: (c, h, w) expected")
    if settings.smashed_dtype not in _SMASHED_DTYPES:
        raise Refusal(f"Settings.smashed_dtype={settings.smashed_dtype}: not a known type")
    if settings.compute_dtype not in _COMPUTE_DTYPES:
        raise Refusal(f"Settings.compute_dtype={settings.compute_dtype}: FP32 or FP64 expected")
    numbers = wire.num_tensor_bytes(settings.smashed_dtype, smashed_shape(settings))
    if 2 * numbers + wire.ENVELOPE_BYTES > wire.MAX_MESSAGE_BYTES:
        raise Refusal(
            f"smashed data of {2 * numbers} bytes a step, and a message has at most "
            f"{wire.MAX_MESSAGE_BYTES}; clients.batch_size must be smaller"
        )
    if len(settings.mean) != 3 or len(settings.std) != 3 or min(settings.std) <= 0:
        raise Refusal("Settings.mean, Settings.std: 3 numbers each expected, std above 0")
    if welcome.WhichOneof("start") is None:
        raise Refusal("a Welcome that doesn't say what to start from")
    if welcome.HasField("head"):
        check_head(welcome.head, settings)


def check_head(head: pb.Head, settings: pb.Settings) -> None:
    """Check the weights of a head, `Refusal` if they are anything but what is expected."""
    shape, dtype = (settings.num_parameters,), settings.compute_dtype
    wire.decode(head.online, dtype=dtype, shape=shape, name="Head.online")
    if head.HasField("momentum"):
        wire.decode(head.momentum, dtype=dtype, shape=shape, name="Head.momentum")


def check_step(request: pb.StepRequest, settings: pb.Settings) -> None:
    """Check what is asked for a step, and the head that comes with it.

    Raises:
        Refusal: a number is out of its range.
    """
    if request.number >= settings.steps_per_round:
        raise Refusal(f"StepRequest.number={request.number}: a round has fewer steps")
    last_row = request.first_row + settings.batch_size
    if not last_row <= request.num_rows <= _MAX_ROWS:
        raise Refusal(
            f"StepRequest.num_rows={request.num_rows}: {last_row} to {_MAX_ROWS} expected"
        )
    if not (math.isfinite(request.learning_rate) and request.learning_rate >= 0):
        raise Refusal(f"StepRequest.learning_rate={request.learning_rate}: at least 0 expected")
    if request.HasField("head"):
        check_head(request.head, settings)
