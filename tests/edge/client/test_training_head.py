"""A head on a client equals the simulation's client; what it keeps, it goes on from."""

from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from mocosfl.config.schema import Config
from mocosfl.data.augmentation import ViewSettings
from mocosfl.data.federated_data import FederatedData
from mocosfl.data.view_maker import view_settings
from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.client.own_images import OwnImages
from mocosfl.edge.client.training_head import TrainingHead
from mocosfl.edge.wire import Floats, Refusal
from mocosfl.federation.build import build_federation
from mocosfl.federation.federation import Federation
from mocosfl.federation.optimizer import make_optimizer
from mocosfl.federation.step_input import Step
from mocosfl.models.whole_network import WholeNetwork
from tests.support.configurations import Compose

CLIENT = 2  # the one whose part is played
NUM_STEPS = 6
OVERRIDES = [
    "clients.num_clients=4",
    "clients.participation=1",
    "clients.batch_size=3",
    "trainer.precision=fp64",
    "split=cut2",
]

SIZE_32 = ["dataset.image_size=32", "dataset.name=digits32"]  # a cache of its own


class Simulation(NamedTuple):
    """A federation with its steps, and the folder of one client's images."""

    federation: Federation
    optimizer: Optimizer
    steps: list[Step]
    settings: pb.Settings
    images: OwnImages

    def request(self, number: int, **changes: Any) -> pb.StepRequest:
        rows = self.settings.batch_size
        values = {
            "step": number,
            "round": self.steps[number].round,
            "number": self.steps[number].number,
            "first_row": CLIENT * rows,
            "num_rows": 4 * rows,
            "learning_rate": 0.05 / (1 + number),
        }
        return pb.StepRequest(**{**values, **changes})

    def welcome(self, **start: Any) -> pb.Welcome:
        if not start:
            start = {
                "head": pb.Head(online=self.tensor("online"), momentum=self.tensor("momentum"))
            }
        return pb.Welcome(run="r", incarnation="i", client=CLIENT, settings=self.settings, **start)

    def tensor(self, kind: str) -> pb.Tensor:
        return wire.encode_tensor(self.state(kind).numpy(), self.settings.compute_dtype)

    def state(self, kind: str) -> Tensor:
        tensors = self.federation.clients.client_state(CLIENT, self.optimizer)[kind]
        return torch.cat([tensor.flatten() for tensor in tensors.values()])

    def train(self, number: int) -> tuple[Tensor, Tensor, Floats]:
        """Do a step for all clients; return the query, the key and the gradient of this one."""
        step = self.steps[number]
        dtype = next(self.federation.parameters()).dtype
        assert step.view2 is not None
        step = step._replace(view1=step.view1.to(dtype), view2=step.view2.to(dtype))
        smashed = self.federation.smash(step)
        query, key = smashed.query, smashed.key
        assert key is not None
        gradient = torch.zeros_like(query)
        if query.requires_grad:
            query.retain_grad()
        self.federation.learn(smashed).loss.backward()
        if query.grad is not None:
            gradient = query.grad
        for group in self.optimizer.param_groups:
            group["lr"] = 0.05 / (1 + number)
        self.optimizer.step()
        self.optimizer.zero_grad()
        own = slice(CLIENT * len(query) // 4, (CLIENT + 1) * len(query) // 4)
        return query[own].detach(), key[own], gradient[own].numpy()


def settings_of(config: Config, federation: Federation, steps_per_round: int) -> pb.Settings:
    head = federation.clients.head
    assert not isinstance(head, WholeNetwork)
    size = config.dataset.image_size
    parameter = next(head.parameters())
    split, views = config.split, view_settings(config)
    fp64 = parameter.dtype is torch.float64
    return pb.Settings(
        seed=config.seed,
        network=pb.Network(
            backbone=config.backbone.name,
            width=config.backbone.width,
            cut_layer=split.cut_layer,
            bottleneck_channels=split.bottleneck_channels or 0,
            bottleneck_stride=split.bottleneck_stride,
            bottleneck_kernel=split.bottleneck_kernel,
            bottleneck_relu=split.bottleneck_relu,
            client_residual=split.client_residual,
        ),
        views=pb.Views(**{f.name: getattr(views, f.name) for f in fields(ViewSettings)}),
        image_size=size,
        mean=list(config.dataset.mean),
        std=list(config.dataset.std),
        batch_size=config.clients.batch_size,
        steps_per_round=steps_per_round,
        both_views=federation.both_views,
        frozen=federation.clients.frozen,
        align_momentum=federation.align_momentum,
        tau=config.moco.momentum,
        sgd_momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
        smashed_dtype=pb.FP64 if fp64 else pb.FP32,
        compute_dtype=pb.FP64 if fp64 else pb.FP32,
        smashed_shape=head(torch.zeros(1, 3, size, size, dtype=parameter.dtype)).shape[1:],
        num_parameters=sum(p.numel() for p in head.parameters()),
    )


def simulate(config: Config, folder: Path) -> Simulation:
    data = FederatedData(config)
    images = np.asarray(data.dataset.train.images[data.partition.client(CLIENT)])
    folder.mkdir(exist_ok=True)
    np.save(folder / "images.npy", images)
    federation = build_federation(config)
    if config.trainer.precision == "fp64":
        federation.double()
    optimizer = make_optimizer(
        federation,
        server_lr=0.05,
        client_lr=config.optimizer.client_lr,
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
    )
    loader = data.step_loader(data.view_maker(torch.device("cpu")))
    loader.load_state_dict({"next_step": data.steps_per_round - 2})  # across the end of a round
    steps = [step for step, _ in zip(loader, range(NUM_STEPS), strict=False)]
    settings = settings_of(config, federation, data.steps_per_round)
    return Simulation(federation, optimizer, steps, settings, OwnImages(folder))


@pytest.fixture
def simulation(compose_quick: Compose, tmp_path: Path) -> Simulation:
    return simulate(compose_quick(OVERRIDES), tmp_path / "client")


def started(simulation: Simulation, folder: Path | None = None) -> TrainingHead:
    head = TrainingHead(simulation.images, folder)
    head.begin(simulation.welcome())
    return head


def states(head: TrainingHead) -> list[Tensor]:
    """Return all that shapes the head's next step."""
    head.keep(10_000)
    kept = head._kept.get("r", 10_000)
    assert kept is not None
    buffer = torch.zeros(0) if kept.buffer is None else kept.buffer
    return [kept.online, kept.momentum, buffer]


def assert_same_bits(one: TrainingHead, other: TrainingHead) -> None:
    for own, others in zip(states(one), states(other), strict=True):
        assert torch.equal(own, others)


def close(values: Floats | Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(values), expected, rtol=1e-12, atol=1e-12)


def compare(simulation: Simulation) -> None:
    """Train both, with a sync behind the third step."""
    head = started(simulation)
    for number in range(NUM_STEPS):
        views = head.views(simulation.request(number))
        step, rows = simulation.steps[number], simulation.settings.batch_size
        own = slice(CLIENT * rows, (CLIENT + 1) * rows)
        for view, whole in zip(views, (step.view1, step.view2), strict=True):
            assert whole is not None and torch.equal(view, whole[own])
        query, key = head.smash(simulation.request(number))
        expected_query, expected_key, gradient = simulation.train(number)
        close(query, expected_query)
        close(key, expected_key)
        if not simulation.settings.frozen:
            head.learn(gradient)
        if number == 2 and not simulation.settings.frozen:
            simulation.federation.synchronise()
            aligned = simulation.settings.align_momentum
            momentum = {"momentum": simulation.tensor("momentum")} if aligned else {}
            head.take(pb.Head(step=3, online=simulation.tensor("online"), **momentum))
            assert head.head_step == 3
        online, momentum_head, buffer = states(head)
        close(online, simulation.state("online"))
        close(momentum_head, simulation.state("momentum"))
        if not simulation.settings.frozen:
            close(buffer, simulation.state("sgd"))


def test_a_head_sees_and_learns_what_a_client_of_the_simulation_does(
    simulation: Simulation,
) -> None:
    before = simulation.state("online")
    compare(simulation)
    assert not torch.allclose(before, simulation.state("online"), atol=1e-4)
    assert {step.round for step in simulation.steps} == {0, 1}


@pytest.mark.parametrize(
    "overrides",
    [
        ["moco.symmetric=full", "method=monacosfl"],
        ["optimizer.client_lr=0"],
        ["split=cut1_c4s2"],
        pytest.param(["backbone=vgg11", "split=cut3", *SIZE_32], marks=pytest.mark.slow),
        pytest.param(
            ["backbone=mobilenetv2", "backbone.width=8", "split.client_residual=false"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=" ".join,
)
def test_every_kind_of_head_equals_the_simulations(
    compose_quick: Compose, tmp_path: Path, overrides: list[str]
) -> None:
    simulation = simulate(compose_quick([*OVERRIDES, *overrides]), tmp_path / "client")
    compare(simulation)


def play(head: TrainingHead, simulation: Simulation, numbers: range) -> None:
    """Train on made-up gradients: any will do to compare a head with itself."""
    for number in numbers:
        query, _ = head.smash(simulation.request(number))
        head.learn(np.sin(np.arange(query.size) + number).reshape(query.shape))


@pytest.mark.parametrize("what", ["smash", "take", "keep", "go_on"])
def test_a_step_that_the_head_is_left_out_of_changes_no_bit(
    simulation: Simulation, what: str
) -> None:
    head, other = started(simulation), started(simulation)
    for one in (head, other):
        play(one, simulation, range(2))
    head.smash(simulation.request(2))
    given = pb.Head(step=2, online=simulation.tensor("online"))
    if what == "smash":
        play(head, simulation, range(3, 4))
        play(other, simulation, range(3, 4))
    elif what == "take":
        head.take(given)
        other.take(given)
    elif what == "go_on":
        head.begin(simulation.welcome(go_on=True))
    assert_same_bits(head, other)  # it calls keep
    play(head, simulation, range(4, 6))
    play(other, simulation, range(4, 6))
    assert_same_bits(head, other)


@pytest.mark.parametrize("new_process", [False, True])
def test_a_head_goes_on_from_what_it_kept_bit_for_bit(
    simulation: Simulation, tmp_path: Path, new_process: bool
) -> None:
    folder = tmp_path / "state" if new_process else None
    head = started(simulation, folder)
    play(head, simulation, range(2))
    head.take(pb.Head(step=2, online=simulation.tensor("online")))
    play(head, simulation, range(2, 3))
    head.keep(3)
    play(head, simulation, range(3, 6))
    expected = [tensor.clone() for tensor in states(head)]
    expected_name = pb.KeptState(run="r", step=3, head_step=2)
    if new_process:
        del head
        head = TrainingHead(OwnImages(simulation.images.folder), folder)
        assert head.incarnation == ""
    assert expected_name in head.kept
    head.begin(simulation.welcome(restore_step=3))
    assert (head.incarnation, head.head_step) == ("i", 2)
    # A state behind the one gone back to is of a course that the run may not take again.
    assert list(head.kept) == [expected_name]
    play(head, simulation, range(3, 6))
    for tensor, other in zip(states(head), expected, strict=True):
        assert torch.equal(tensor, other)


def test_the_newest_two_states_are_kept_in_memory_and_on_disk(
    simulation: Simulation, tmp_path: Path
) -> None:
    head = started(simulation, tmp_path)
    for step in (1, 2, 3, 3):
        head.keep(step)
    assert [state.step for state in head.kept] == [2, 3]
    assert len(list(tmp_path.glob("kept-*.pt"))) == 2
    with pytest.raises(Refusal, match="restore_step=1, which this client has not kept"):
        head.begin(simulation.welcome(restore_step=1))


def test_a_state_folder_has_one_client(simulation: Simulation, tmp_path: Path) -> None:
    head = started(simulation, tmp_path)
    head.keep(1)
    with pytest.raises(ValueError, match="another client uses this folder"):
        TrainingHead(simulation.images, tmp_path)
    del head
    other = TrainingHead(simulation.images, tmp_path)
    welcome = simulation.welcome(restore_step=1)
    welcome.client = CLIENT + 1
    with pytest.raises(ValueError, match=f"holds states of client {CLIENT}"):
        other.begin(welcome)


def test_a_file_that_is_no_state_is_named_and_left_alone(
    simulation: Simulation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    head = started(simulation, tmp_path)
    head.keep(1)
    del head
    (whole,) = tmp_path.glob("kept-*.pt")
    broken = tmp_path / "kept-broken.pt"
    broken.write_bytes(whole.read_bytes()[:200])
    head = TrainingHead(simulation.images, tmp_path)
    assert [state.step for state in head.kept] == [1] and broken.exists()
    assert "kept-broken.pt is no state" in caplog.text


def test_a_new_head_starts_with_its_momentum_copy_and_an_empty_buffer(
    simulation: Simulation,
) -> None:
    head = started(simulation)
    play(head, simulation, range(2))
    online = simulation.tensor("online")
    head.begin(simulation.welcome(head=pb.Head(step=7, online=online)))
    fresh, momentum, buffer = states(head)
    assert torch.equal(fresh, simulation.state("online")) and torch.equal(momentum, fresh)
    assert len(buffer) == 0 and head.head_step == 7


def test_a_head_without_a_state_of_this_server_does_not_go_on(simulation: Simulation) -> None:
    with pytest.raises(Refusal, match="without a state"):
        TrainingHead(simulation.images).begin(simulation.welcome(go_on=True))
    head = started(simulation)
    welcome = simulation.welcome(go_on=True)
    welcome.incarnation = "another"
    with pytest.raises(Refusal, match="without a state"):
        head.begin(welcome)


def test_a_network_of_another_size_than_the_servers_is_refused(simulation: Simulation) -> None:
    welcome = simulation.welcome()
    welcome.settings.num_parameters += 1
    with pytest.raises(ValueError, match="install the same version on both"):
        TrainingHead(simulation.images).begin(welcome)


def test_weights_are_flat_and_the_momentum_head_comes_only_where_it_is_averaged(
    simulation: Simulation,
) -> None:
    head = started(simulation)
    online, momentum = head.weights()
    np.testing.assert_array_equal(online, simulation.state("online").numpy())
    assert momentum is None
    simulation.settings.align_momentum = True
    head.begin(simulation.welcome(go_on=True))
    assert head.weights()[1] is not None
    online[:] = 0  # a copy: the head is as it was
    np.testing.assert_array_equal(head.weights()[0], simulation.state("online").numpy())


def test_gradients_straight_from_the_wire_are_taken(simulation: Simulation) -> None:
    head = started(simulation)
    query, _ = head.smash(simulation.request(0))
    for dtype in (pb.FP16, pb.FP32, pb.FP64):  # of FP32 and FP64 the numbers are read-only
        tensor = wire.encode_tensor(np.ones_like(query), dtype)
        head.smash(simulation.request(0))
        head.learn(wire.decode_tensor(tensor, dtype=dtype, shape=query.shape, name="gradient"))
