"""A client whose head is frozen and exported: it sends smashed data up, and learns nothing.

Runs without torch. A frozen head's momentum copy is the head itself, so query and key are the
same network's outputs of two views.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mocosfl.data.round_plan import step_of_client
from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge.client.exported_head import ExportedHead
from mocosfl.edge.client.pillow_views import draw_pillow_views, make_pillow_views
from mocosfl.edge.wire import Floats
from mocosfl.system.randomness import numpy_generator

VIEWS = "edge_views"  # purpose of the random numbers


class ClientImages(Protocol):
    """The images that a client holds; `own_images.OwnImages`."""

    def fit(self, image_size: int) -> None:
        """Say how large they must be, pixels."""

    def __len__(self) -> int:
        """Return how many there are."""

    def read(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return images (m, S, S, 3) by their places, (m,)."""


class FrozenHead:
    """What a client with an exported head runs; `client_head.ClientHead` says how it is used."""

    def __init__(self, images: ClientImages, head_file: Path) -> None:
        """Load the head.

        Args:
            images: that the client holds.
            head_file: from `python -m mocosfl.export head`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no exported head.
        """
        self._images, self._file = images, head_file
        self._head = ExportedHead(head_file)
        self._welcome: pb.Welcome | None = None
        self.incarnation = ""  # of the server, from the first Welcome on

    @property
    def digest(self) -> str:
        """Of the head, see `wire.head_digest`."""
        return self._head.facts.digest

    @property
    def head_step(self) -> int:
        """Step of the run that the head comes from: it is the first for ever."""
        return 0

    @property
    def kept(self) -> Sequence[pb.KeptState]:
        """States to go back to: none is needed."""
        return ()

    def begin(self, welcome: pb.Welcome) -> None:
        """Take the settings of the run.

        Raises:
            ValueError: this head or these images can't take part in it.
        """
        problems = _problems(self._head, welcome.settings)
        if problems:
            raise ValueError(
                f"head={self._file}: the server's run can't use this head: {'; '.join(problems)}"
            )
        self._images.fit(welcome.settings.image_size)
        self._welcome, self.incarnation = welcome, welcome.incarnation

    def smash(self, request: pb.StepRequest) -> tuple[Floats, Floats]:
        """Return query and key of a step, (b or 2b, c, h, w) float32."""
        assert self._welcome is not None  # `begin` comes first
        client, settings = self._welcome.client, self._welcome.settings
        images = self._images.read(_drawn(len(self._images), client, settings, request))
        # Own stream a step, so that a step asked for again after a restart has the same views.
        generator = numpy_generator(settings.seed, VIEWS, client, request.round, request.number)
        query, key = (self._smash_view(images, generator, settings) for _ in range(2))
        if settings.both_views:
            query, key = np.concatenate([query, key]), np.concatenate([key, query])
        return query, key

    def _smash_view(
        self,
        images: npt.NDArray[np.uint8],
        generator: np.random.Generator,
        settings: pb.Settings,
    ) -> npt.NDArray[np.float32]:
        """Make a view of each image and run the head; (b, c, h, w)."""
        height, width = images.shape[1:3]
        drawn = draw_pillow_views(
            settings.views, generator, num_images=len(images), source=(height, width)
        )
        smashed = np.empty((len(images), *self._head.facts.smashed_shape), np.float32)
        # One image at a time: nothing depends on the batch, and memory doesn't grow with it.
        for row, own in enumerate(drawn):
            view = make_pillow_views(
                images[row : row + 1],
                [own],
                output_size=settings.image_size,
                mean=settings.mean,
                std=settings.std,
            )
            smashed[row : row + 1] = self._head(view)
        return smashed

    def learn(self, gradient: Floats) -> None:
        """Refuse: there is nothing to learn.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("a gradient came, and the head is frozen")

    def weights(self) -> tuple[Floats, Floats | None]:
        """Refuse: an exported head has no parameters to give.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("weights are asked for, and the head is frozen")

    def take(self, head: pb.Head) -> None:
        """Refuse: an exported head can't be replaced.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("another head came, and this one is frozen")

    def keep(self, step: int) -> None:
        """Do nothing: no step changes anything."""


def _drawn(
    num_own: int, client: int, settings: pb.Settings, request: pb.StepRequest
) -> npt.NDArray[np.int64]:
    """Return the places of a step's images among the client's own, (b,)."""
    return step_of_client(
        num_own,
        client,
        seed=settings.seed,
        round_index=request.round,
        number=request.number,
        steps_per_round=settings.steps_per_round,
        batch_size=settings.batch_size,
    )


def _problems(head: ExportedHead, settings: pb.Settings) -> list[str]:
    """Return what keeps a head from taking part in a run, each with a way out."""
    facts = head.facts
    if not settings.frozen:
        return ["it trains its heads; leave --head out (that needs torch)"]
    problems = []
    if settings.compute_dtype != pb.FP32:
        problems.append("it computes in float64 (trainer.precision=fp64), an exported head can't")
    ours = {
        "image_size": facts.image_size,
        "mean": facts.mean,
        "std": facts.std,
        "smashed_shape": facts.smashed_shape,
        "head_digest": facts.digest,
    }
    theirs = {
        "image_size": settings.image_size,
        "mean": tuple(settings.mean),
        "std": tuple(settings.std),
        "smashed_shape": tuple(settings.smashed_shape),
        "head_digest": settings.head_digest,
    }
    differing = [
        f"{name} is {theirs[name]} there and {ours[name]} here"
        for name in ours
        if theirs[name] != ours[name]
    ]
    if differing:
        differing.append("export the head of the run's own expert again")
    return problems + differing
