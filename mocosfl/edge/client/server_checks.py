"""What a client checks of the server's messages before it works on them."""

import math

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.wire import Refusal

# Far above any round's pool; what a client draws for a step grows with it.
_MAX_ROWS = 2**20
# Memory that a client takes at a server's word grows with these.
_MAX_IMAGE_SIZE = 4096  # pixels
_MAX_ROUND_IMAGES = 2**26  # that a client draws in a round
_MAX_WIDTH = 4096  # channels
_SMASHED_DTYPES = tuple(wire.ITEMS)
_COMPUTE_DTYPES = (pb.FP32, pb.FP64)


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
    _check_sizes(settings)
    _check_numbers(settings)
    if len(settings.smashed_shape) != 3 or 0 in settings.smashed_shape:
        raise Refusal(f"Settings.smashed_shape={list(settings.smashed_shape)}: (c, h, w) expected")
    if settings.smashed_dtype not in _SMASHED_DTYPES:
        raise Refusal(f"Settings.smashed_dtype={settings.smashed_dtype}: not a known type")
    if settings.compute_dtype not in _COMPUTE_DTYPES:
        raise Refusal(f"Settings.compute_dtype={settings.compute_dtype}: FP32 or FP64 expected")
    numbers = wire.num_tensor_bytes(settings.smashed_dtype, wire.smashed_shape(settings))
    if 2 * numbers + wire.ENVELOPE_BYTES > wire.MAX_MESSAGE_BYTES:
        raise Refusal(
            f"smashed data of {2 * numbers} bytes a step, and a message has at most "
            f"{wire.MAX_MESSAGE_BYTES}; clients.batch_size must be smaller"
        )
    if welcome.WhichOneof("start") is None:
        raise Refusal("a Welcome that doesn't say what to start from")
    if welcome.HasField("head"):
        check_given_head(welcome.head, settings)


def _check_sizes(settings: pb.Settings) -> None:
    bounds = {
        "image_size": (settings.image_size, _MAX_IMAGE_SIZE),
        "steps_per_round * batch_size": (
            settings.steps_per_round * settings.batch_size,
            _MAX_ROUND_IMAGES,
        ),
        "num_parameters": (
            settings.num_parameters,
            wire.MAX_MESSAGE_BYTES // wire.ITEMS[pb.FP64].itemsize,
        ),
        "network.width": (settings.network.width, _MAX_WIDTH),
    }
    for name, (value, most) in bounds.items():
        if value > most:
            raise Refusal(f"Settings.{name}={value}: at most {most} expected")


def _check_numbers(settings: pb.Settings) -> None:
    if len(settings.mean) != 3 or len(settings.std) != 3:
        raise Refusal("Settings.mean, Settings.std: 3 numbers each expected")
    views = [getattr(settings.views, field.name) for field in pb.Views.DESCRIPTOR.fields]
    rates = (settings.tau, settings.sgd_momentum, settings.weight_decay)
    if not all(map(math.isfinite, (*settings.mean, *settings.std, *views, *rates))):
        raise Refusal("Settings: a number is NaN or infinite")
    if min(settings.std) <= 0 or min(rates) < 0 or max(rates[:2]) > 1:
        raise Refusal(
            "Settings: std above 0, tau and sgd_momentum from 0 to 1, weight_decay at least 0 "
            "expected"
        )


def check_given_head(head: pb.Head, settings: pb.Settings) -> None:
    """Check the weights of a head, `Refusal` if they are anything but what is expected."""
    shape, dtype = (settings.num_parameters,), settings.compute_dtype
    wire.decode_tensor(head.online, dtype=dtype, shape=shape, name="Head.online")
    if head.HasField("momentum"):
        wire.decode_tensor(head.momentum, dtype=dtype, shape=shape, name="Head.momentum")


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
        check_given_head(request.head, settings)
