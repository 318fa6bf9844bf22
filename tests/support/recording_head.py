"""A client's head that notes what it is asked."""

from typing import Any

import numpy as np

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge.wire import Floats
from tests.support.scripted_server import SHAPE


class RecordingHead:
    """Notes what it is asked."""

    def __init__(self, digest: str = "") -> None:
        self.digest, self.incarnation, self.head_step = digest, "", 0
        self.kept: list[pb.KeptState] = []
        self.calls: list[Any] = []
        self.query = np.arange(8, dtype=np.float32).reshape(SHAPE)

    def begin(self, welcome: pb.Welcome) -> None:
        self.incarnation, self.run = welcome.incarnation, welcome.run
        self.calls.append(("begin", welcome.WhichOneof("start")))

    def smash(self, request: pb.StepRequest) -> tuple[Floats, Floats]:
        self.calls.append(("smash", request.step))
        return self.query, -self.query

    def learn(self, gradient: Floats) -> None:
        self.calls.append(("learn", float(gradient.sum())))

    def weights(self) -> tuple[Floats, Floats | None]:
        self.calls.append("weights")
        return np.ones(3, np.float32), np.zeros(3, np.float32)

    def take(self, head: pb.Head) -> None:
        self.head_step = head.step
        self.calls.append(("take", head.step))

    def keep(self, step: int) -> None:
        self.kept.append(pb.KeptState(run=self.run, step=step, head_step=self.head_step))
        self.calls.append(("keep", step))
