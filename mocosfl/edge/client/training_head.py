"""A head that trains on a client, as one client of a simulation does.

The images drawn, the views, the order of operations and the arithmetic are those of
`mocosfl.federation`: a client that holds the images which a simulation deals it sees the same
views, bit for bit, and its weights differ by rounding alone (a simulation folds all heads into
grouped convolutions).

Legend: b images of this client in a step, R rows of all clients, (c, h, w) the smashed shape.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mocosfl.data.augmentation import (
    ViewSettings,
    draw_uniforms,
    make_views,
    parameters_from_uniforms,
)
from mocosfl.data.round_plan import step_of_client
from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.client.kept_states import KeptStates, SavedState
from mocosfl.edge.client.own_images import OwnImages
from mocosfl.edge.wire import Floats, Refusal
from mocosfl.federation.single_client import SingleClient
from mocosfl.models.split import Head, bottleneck_of, split_backbone
from mocosfl.system.randomness import torch_generator

_DTYPES = {pb.FP32: torch.float32, pb.FP64: torch.float64}


class TrainingHead:
    """The `ClientHead` with torch; see `client_head.ClientHead` for the methods."""

    digest = ""

    def __init__(self, images: OwnImages, state_folder: Path | None = None) -> None:
        """Hold the images; the network is built when the server has said which.

        Args:
            images: of this client.
            state_folder: where `keep` writes, so that a new process can go on; None: nowhere.

        Raises:
            ValueError: another client uses the folder.
        """
        self.images = images
        self.incarnation, self.head_step = "", 0
        self._kept = KeptStates(state_folder)
        self._query: Tensor | None = None  # of the step whose gradient is to come
        self._learning_rate = 0.0
        self._momentum_before: list[Tensor] = []  # of that step

    @property
    def kept(self) -> Sequence[pb.KeptState]:
        """What `begin` can go back to."""
        return self._kept.named

    def begin(self, welcome: pb.Welcome) -> None:
        """Start, or go on, as the server says.

        Raises:
            Refusal: with a state that this client doesn't have.
            ValueError: the images or the network of this installation do not fit.
        """
        self._take_back()
        start, settings = welcome.WhichOneof("start"), welcome.settings
        self.images.fit(settings.image_size)
        if start == "go_on" and self.incarnation != welcome.incarnation:
            raise Refusal("go_on, to a client without a state of this server")
        self.settings, self._welcome = settings, welcome
        if start == "go_on":
            return
        self.incarnation = ""  # until the state is whole
        if start == "restore_step":
            self._restore(self._find(welcome))
        else:
            self._build(settings)
            self.take(welcome.head)
            if not welcome.head.HasField("momentum"):
                _fill(self.client.momentum, _flat(self.client.online))
        self.incarnation = welcome.incarnation

    def _find(self, welcome: pb.Welcome) -> SavedState:
        state = self._kept.get(welcome.run, welcome.restore_step)
        if state is None:
            raise Refusal(f"restore_step={welcome.restore_step}, which this client has not kept")
        if state.client != welcome.client:
            raise ValueError(
                f"--state {self._kept.folder}: holds states of client {state.client}, and this is "
                f"client {welcome.client}; give each client a folder of its own"
            )
        return state

    def _build(self, settings: pb.Settings) -> None:
        self.client = SingleClient(
            build_head(settings),
            frozen=settings.frozen,
            both_views=settings.both_views,
            tau=settings.tau,
            sgd_momentum=settings.sgd_momentum,
            weight_decay=settings.weight_decay,
        )

    def views(self, request: pb.StepRequest) -> tuple[Tensor, Tensor]:
        """Return the two views of a step's images, (b, 3, H, W) each, float32."""
        settings, size = self.settings, self.settings.image_size
        rows = settings.batch_size
        own = step_of_client(
            len(self.images),
            self._welcome.client,
            seed=settings.seed,
            round_index=request.round,
            number=request.number,
            steps_per_round=settings.steps_per_round,
            batch_size=rows,
        )
        pixels = self.images.read(own)
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        # Both views at once: for a few rows the number of operations is what costs.
        parameters = parameters_from_uniforms(
            _view_settings(settings), self._uniforms(request), source_size=size
        )
        views = make_views(
            torch.cat([images, images]),
            parameters,
            output_size=size,
            mean=settings.mean,
            std=settings.std,
        )
        return views[:rows], views[rows:]

    def _uniforms(self, request: pb.StepRequest) -> Tensor:
        """Return the random numbers of both views, first view first, (2b, NUM_UNIFORMS)."""
        generator = torch_generator(self.settings.seed, "views", request.round, request.number)
        own = slice(request.first_row, request.first_row + self.settings.batch_size)
        # The numbers of all clients' rows are drawn: a row's must not depend on whose it is.
        return torch.cat([draw_uniforms(generator, request.num_rows)[own] for _ in range(2)])

    def smash(self, request: pb.StepRequest) -> tuple[Floats, Floats]:
        """Return query and key of a step, (b or 2b, c, h, w) each."""
        self._take_back()
        dtype = _DTYPES[self.settings.compute_dtype]
        view1, view2 = (view.to(dtype) for view in self.views(request))
        before = (
            [] if self.client.frozen else [p.clone() for p in self.client.momentum.parameters()]
        )
        query, key = self.client.smash(view1, view2)
        assert key is not None
        if not self.client.frozen:
            self._query, self._learning_rate = query, request.learning_rate
            self._momentum_before = before
        return query.detach().numpy(), key.numpy()

    def learn(self, gradient: Floats) -> None:
        """Take the optimizer's step; the gradient has the query's shape."""
        query = self._query
        assert query is not None, "learn comes after smash"
        self.client.learn(query, torch.tensor(gradient, dtype=query.dtype), self._learning_rate)
        self._query, self._momentum_before = None, []

    @torch.no_grad()
    def _take_back(self) -> None:
        """Undo what a step has changed whose gradient did not come."""
        if self._query is None:
            return
        for parameter, before in zip(
            self.client.momentum.parameters(), self._momentum_before, strict=True
        ):
            parameter.copy_(before)
        self._query, self._momentum_before = None, []

    def weights(self) -> tuple[Floats, Floats | None]:
        """Return the online head and, where they are averaged too, the momentum head, flat."""
        momentum = _flat(self.client.momentum).numpy() if self.settings.align_momentum else None
        return _flat(self.client.online).numpy(), momentum

    def take(self, head: pb.Head) -> None:
        """Replace the online head; the momentum head too where it is given."""
        self._take_back()
        _fill(self.client.online, self._decoded(head.online))
        if head.HasField("momentum"):
            _fill(self.client.momentum, self._decoded(head.momentum))
        self.head_step = head.step

    def _decoded(self, tensor: pb.Tensor) -> Tensor:
        settings = self.settings
        numbers = wire.decode_tensor(
            tensor, dtype=settings.compute_dtype, shape=(settings.num_parameters,), name="Head"
        )
        return torch.tensor(numbers)

    def keep(self, step: int) -> None:
        """Keep the state for `begin`, as that of so many steps of the run."""
        self._take_back()
        state = SavedState(
            self._welcome.client,
            self._welcome.run,
            step,
            self.head_step,
            _flat(self.client.online),
            _flat(self.client.momentum),
            self._flat_buffer(),
        )
        self._kept.add(state)

    def _flat_buffer(self) -> Tensor | None:
        state = self.client.optimizer.state
        buffers = [
            state[p]["momentum_buffer"] for p in self.client.online.parameters() if p in state
        ]
        return torch.cat([b.flatten() for b in buffers]) if buffers else None

    def _restore(self, state: SavedState) -> None:
        self._build(self.settings)
        _fill(self.client.online, state.online)
        _fill(self.client.momentum, state.momentum)
        if state.buffer is not None:
            for parameter, values in _pieces(self.client.online, state.buffer):
                self.client.optimizer.state[parameter]["momentum_buffer"] = values.clone()
        self.head_step = state.head_step
        self._kept.forget_after(state.run, state.step)


def build_head(settings: pb.Settings) -> Head:
    """Build the head that a run trains, with memory that holds no values yet.

    Raises:
        ValueError: the network is unknown here, or has another size than the server's.
    """
    network = settings.network
    bottleneck = bottleneck_of(
        network.bottleneck_channels or None,  # a message has 0 for none
        network.bottleneck_stride,
        kernel_size=network.bottleneck_kernel,
        relu=network.bottleneck_relu,
    )
    # Without memory at first: the trunk, which is built too, may not fit into a device.
    with torch.device("meta"):
        split = split_backbone(
            network.backbone,
            width=network.width,
            image_size=settings.image_size,
            cut_layer=network.cut_layer,
            bottleneck=bottleneck,
            client_residual=network.client_residual,
        )
    head = split.head
    found = (sum(p.numel() for p in head.parameters()), split.smashed_shape)
    expected = (settings.num_parameters, tuple(settings.smashed_shape))
    if found != expected:
        raise ValueError(
            f"the server's head has {expected[0]} parameters and smashed data {expected[1]}, this "
            f"client's has {found[0]} and {found[1]}; install the same version on both"
        )
    return head.to_empty(device="cpu").to(_DTYPES[settings.compute_dtype])


def _view_settings(settings: pb.Settings) -> ViewSettings:
    views = settings.views
    return ViewSettings(
        **{field.name: getattr(views, field.name) for field in views.DESCRIPTOR.fields}
    )


def _flat(module: nn.Module) -> Tensor:
    """Return a copy of all parameters, in the order of named_parameters()."""
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def _pieces(module: nn.Module, values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
    parameters = list(module.parameters())
    pieces = values.split([parameter.numel() for parameter in parameters])
    return [(p, piece.view_as(p)) for p, piece in zip(parameters, pieces, strict=True)]


@torch.no_grad()
def _fill(module: nn.Module, values: Tensor) -> None:
    for parameter, piece in _pieces(module, values):
        parameter.copy_(piece)
