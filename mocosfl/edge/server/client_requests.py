"""What the server asks one connected client, and the checks of its answers; without the network.

What arrives is checked against what was asked for. A message that does not fit is refused and
counted; nothing of it reaches the training.

b: images of the client in a step. c, h, w: of a row of smashed data.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.server.traffic_ledger import Account
from mocosfl.edge.wire import Floats, Refusal

log = logging.getLogger(__name__)

SMASHED, WEIGHTS, KEPT = "smashed", "weights", "kept"
MAX_UNREAD = 64  # messages that wait for a client that does not read


class Expectation(NamedTuple):
    """What a client's tensors must look like."""

    smashed_shape: tuple[int, int, int, int]  # (b or 2b, c, h, w)
    smashed_dtype: int  # of pb.Dtype
    num_parameters: int  # of a head
    weights_dtype: int
    align_momentum: bool  # whether weights come with the momentum head's
    frozen: bool

    @property
    def max_message_bytes(self) -> int:
        """Bytes of the largest message that is expected."""
        smashed = wire.num_tensor_bytes(self.smashed_dtype, self.smashed_shape)
        weights = wire.num_tensor_bytes(self.weights_dtype, (self.num_parameters,))
        return 2 * max(smashed, 0 if self.frozen else weights) + wire.ENVELOPE_BYTES


class Pair(NamedTuple):
    """The two tensors of an answer: query and key, or online and momentum head."""

    first: Floats
    second: Floats | None


class OpenRequest(NamedTuple):
    """What a client has been asked and not yet answered."""

    kind: str  # SMASHED, WEIGHTS or KEPT
    step: int
    # Whether the answer will not be used any more.
    overdue: bool = False


# (client, kind, the answer or None where it was refused)
Deliver = Callable[[int, str, Any], None]


class ClientRequests:
    """One request at a time, and what is to be sent."""

    def __init__(
        self,
        client: int,
        expectation: Expectation,
        account: Account,
        *,
        max_refusals: int,
        deliver: Deliver,
    ) -> None:
        """Begin behind the client's Hello.

        Args:
            client: its id.
            expectation: of its tensors.
            account: where its bytes are counted.
            max_refusals: at which it is disconnected.
            deliver: takes each answer that is in time, and what ends a wait for one.
        """
        self.client, self.expectation, self.account = client, expectation, account
        self.max_refusals, self.deliver = max_refusals, deliver
        self.open_request: OpenRequest | None = None
        self.given = -1  # Head.step of the head that the client has; -1: not welcomed yet
        self.outbox: deque[bytes] = deque()
        self.on_outbox: Callable[[], None] = lambda: None
        self.banned_for: str | None = None  # why the client is to be disconnected
        self.over = False  # the client is gone; what it had sent before is not read any more
        self._last_answer = -1  # step of its last smashed data

    @property
    def idle(self) -> bool:
        """Whether the client may be asked something."""
        return self.given >= 0 and self.open_request is None and self.banned_for is None

    def welcome(self, welcome: pb.Welcome, given: int) -> None:
        """Let the client in; `given` is the Head.step of the head that it then has."""
        self.given = given
        self._send(pb.ServerMessage(welcome=welcome), _tensors_of_head(welcome.head))

    def ask_step(self, request: pb.StepRequest) -> None:
        """Ask for a step's smashed data."""
        assert self.idle
        self.open_request = OpenRequest(SMASHED, request.step)
        if request.HasField("head"):
            self.given = request.head.step
        self._send(pb.ServerMessage(step=request), _tensors_of_head(request.head))

    def send_gradient(self, step: int, gradient: Floats, *, sync_after: bool) -> None:
        """Answer a step; behind it the client sends its weights where a sync is due."""
        tensor = wire.encode_tensor(gradient, self.expectation.smashed_dtype)
        message = pb.ServerMessage(gradient=pb.Gradient(step=step, query=tensor))
        if sync_after:
            self.open_request = OpenRequest(WEIGHTS, step)
        self._send(message, [tensor])

    def give_head(self, head: pb.Head) -> None:
        """Send what a sync gives to a client that took part."""
        self.given = head.step
        self._send(pb.ServerMessage(head=head), _tensors_of_head(head))

    def ask_keep(self, step: int) -> None:
        """Have the client keep its state."""
        assert self.idle
        self.open_request = OpenRequest(KEPT, step)
        self._send(pb.ServerMessage(keep=pb.Keep(step=step)), [])

    def goodbye(self, *, finished: bool, text: str) -> None:
        """Tell the client that the server ends."""
        goodbye = pb.Goodbye(finished=finished, text=text)
        self._send(pb.ServerMessage(goodbye=goodbye), [])

    def give_up_waiting(self) -> None:
        """Do without the answer that is still out; the client is asked again when it has come."""
        if self.open_request is not None and not self.open_request.overdue:
            self.open_request = self.open_request._replace(overdue=True)
            if self.open_request.kind == SMASHED:
                self.account.late_steps += 1

    def receive(self, data: bytes) -> None:
        """Take a message as it came."""
        if self.over:
            return
        kind: str | None = None
        tensors: list[pb.Tensor] = []
        try:
            message = wire.parse_client_message(data, max_bytes=self.expectation.max_message_bytes)
            self._take(message)
            # What is refused counts as all else.
            kind, tensors = message.WhichOneof("content"), _tensors_of(message)
        except Refusal as refusal:
            self._refuse(str(refusal))
        finally:
            self.account.count_up(kind, tensors, len(data))

    def _take(self, message: pb.ClientMessage) -> None:
        kind = message.WhichOneof("content")
        if kind == SMASHED:
            self._take_smashed(message.smashed)
        elif kind == WEIGHTS:
            self._take_weights(message.weights)
        elif kind == KEPT:
            self._answered(KEPT, message.kept.step)
            self.deliver(self.client, KEPT, message.kept.step)
        else:
            raise Refusal("Hello was said already")

    def _take_smashed(self, smashed: pb.Smashed) -> None:
        overdue = self._answered(SMASHED, smashed.step)
        self._last_answer = smashed.step
        try:
            pair = Pair(
                self._smashed(smashed.query, "Smashed.query"),
                self._smashed(smashed.key, "Smashed.key"),
            )
        except Refusal:
            self.deliver(self.client, SMASHED, None)
            raise
        if not overdue:
            self.account.steps += 1
            self.deliver(self.client, SMASHED, pair)
        else:
            self.deliver(self.client, SMASHED, None)

    def _take_weights(self, weights: pb.Weights) -> None:
        overdue = self._answered(WEIGHTS, weights.step)
        try:
            pair = self._weights(weights)
        except Refusal:
            self.deliver(self.client, WEIGHTS, None)
            raise
        if not overdue:
            self.account.syncs += 1
        self.deliver(self.client, WEIGHTS, None if overdue else pair)

    def _answered(self, kind: str, step: int) -> bool:
        """Close the request that a message answers; returns whether it comes too late.

        Raises:
            Refusal: nothing of that sort was asked.
        """
        asked = self.open_request
        if asked is None or (asked.kind, asked.step) != (kind, step):
            if kind == SMASHED and step == self._last_answer:
                raise Refusal(f"Smashed of step {step} has come before")
            wanted = "nothing" if asked is None else f"{asked.kind} of step {asked.step}"
            raise Refusal(f"{kind} of step {step}, and {wanted} is asked for")
        self.open_request = None
        return asked.overdue

    def _smashed(self, tensor: pb.Tensor, name: str) -> Floats:
        e = self.expectation
        return wire.decode_tensor(
            tensor,
            dtype=e.smashed_dtype,
            shape=e.smashed_shape,
            name=name,
            largest=wire.LARGEST_SMASHED,
        )

    def _weights(self, weights: pb.Weights) -> Pair:
        e = self.expectation
        form: dict[str, Any] = {
            "dtype": e.weights_dtype,
            "shape": (e.num_parameters,),
            "largest": wire.LARGEST_WEIGHT,
        }
        online = wire.decode_tensor(weights.online, **form, name="Weights.online")
        if weights.HasField("momentum") != e.align_momentum:
            wanted = "is" if e.align_momentum else "is not"
            raise Refusal(f"Weights.momentum: {wanted} expected")
        momentum = None
        if e.align_momentum:
            momentum = wire.decode_tensor(weights.momentum, **form, name="Weights.momentum")
        return Pair(online, momentum)

    def _refuse(self, reason: str) -> None:
        account = self.account
        account.refusals += 1
        account.strikes += 1
        log.warning(
            "client %d: refused (%d of %d): %s",
            self.client,
            account.strikes,
            self.max_refusals,
            reason,
        )
        refused = pb.Refused(reason=reason, count=account.strikes, limit=self.max_refusals)
        self._send(pb.ServerMessage(refused=refused), [])
        if account.strikes >= self.max_refusals:
            self.banned_for = f"{account.strikes} messages were refused, the last one: {reason}"
            self.on_outbox()

    def _send(self, message: pb.ServerMessage, tensors: Iterable[pb.Tensor]) -> None:
        data = message.SerializeToString()
        kind = message.WhichOneof("content")
        assert kind is not None
        if len(self.outbox) >= MAX_UNREAD:
            self.banned_for = f"it has left {MAX_UNREAD} messages unread"
        else:
            self.account.count_down(kind, tensors, len(data))
            self.outbox.append(data)
        self.on_outbox()


def _tensors_of(message: pb.ClientMessage) -> list[pb.Tensor]:
    kind = message.WhichOneof("content")
    if kind == SMASHED:
        return [message.smashed.query, message.smashed.key]
    if kind == WEIGHTS:
        return [message.weights.online, message.weights.momentum]
    return []


def _tensors_of_head(head: pb.Head) -> list[pb.Tensor]:
    return [head.online, head.momentum]
