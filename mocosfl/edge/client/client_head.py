"""What `Answerer` asks of a client's head, whether it trains or is exported."""

from collections.abc import Sequence
from typing import Protocol

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge.wire import Floats


class ClientHead(Protocol):
    """What a client runs, one object for the life of the program.

    A step begins with `smash` and ends with `learn`. Where `smash`, `take`, `keep` or `begin` comes
    in place of `learn`, the client was left out of the step: the head first takes back what
    the step has changed.
    """

    @property
    def digest(self) -> str:
        """Of an exported head; "" for a head that trains."""

    @property
    def incarnation(self) -> str:
        """Of the server that the live state comes from; "" without one."""

    @property
    def head_step(self) -> int:
        """`Head.step` of the head that was given last."""

    @property
    def kept(self) -> Sequence[pb.KeptState]:
        """What `begin` can go back to."""

    def begin(self, welcome: pb.Welcome) -> None:
        """Start, or go on, as the server says."""

    def smash(self, request: pb.StepRequest) -> tuple[Floats, Floats]:
        """Return query and key of a step, (b or 2b, c, h, w) each."""

    def learn(self, gradient: Floats) -> None:
        """Take the optimizer's step; the gradient has the query's shape."""

    def weights(self) -> tuple[Floats, Floats | None]:
        """Return the online head and, where Settings.align_momentum, the momentum head, flat."""

    def take(self, head: pb.Head) -> None:
        """Replace the online head; the momentum head too where it is given."""

    def keep(self, step: int) -> None:
        """Keep the state for `begin`, as that of so many steps of the run."""
