"""Small networks and federations in float64, and a training step without Lightning."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mocosfl.federation.averaging import Averager
from mocosfl.federation.client_bank import ClientBank
from mocosfl.federation.client_pool import ClientPool
from mocosfl.federation.federation import Federation
from mocosfl.federation.optimizer import make_optimizer
from mocosfl.federation.queue import KeyQueue
from mocosfl.federation.server import Server, ServerOutput
from mocosfl.federation.step_input import ClientGroup, Step
from mocosfl.models.projector import Projector
from mocosfl.models.split import Split, split_backbone

WIDTH, SIZE, DIM = 8, 8, 6
TEMPERATURE, TAU = 0.1, 0.9  # tau far from 1, so that momentum copies move visibly


def make_split(
    name: str = "resnet18", *, cut_layer: int | None = 1, seed: int = 0, **more: Any
) -> Split:
    """Build a small split in float64 from a seed."""
    settings = {"width": WIDTH, "image_size": SIZE, **more}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        split = split_backbone(name, cut_layer=cut_layer, **settings)
    split.head.double()
    split.trunk.double()
    return split


def bank_bytes(bank: ClientBank) -> int:
    """Return the memory that a bank takes."""
    kinds = bank.state_dict()["bank"].values()
    return sum(t.nbytes for kind in kinds for pair in kind.values() for t in pair if t is not None)


def make_projector(split: Split) -> Projector:
    """Build a projector of one hidden layer in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Projector(split.feature_dim, hidden_dim=12, embedding_dim=DIM).double()


def make_queue(num_queues: int, length: int) -> KeyQueue:
    """Build queues of random keys in float64."""
    generator = torch.Generator().manual_seed(2)
    return KeyQueue(num_queues, length, dim=DIM, generator=generator).double()


def make_federation(
    split: Split,
    *,
    num_clients: int,
    pool_size: int,
    symmetric: str = "server",
    feature_sharing: bool = True,
    queue_length: int = 20,
    align_momentum: bool = False,
    stateless: bool = False,
    frozen: bool = False,
    averager: Averager | None = None,
) -> Federation:
    """Build a federation around a split, whose modules it takes."""
    num_queues = 1 if feature_sharing else num_clients
    clients = ClientPool(
        split.head,
        num_clients=num_clients,
        pool_size=pool_size,
        momentum=TAU,
        stateless=stateless,
        frozen=frozen,
        averager=averager,
    )
    server = Server(
        split.trunk,
        make_projector(split),
        make_queue(num_queues, queue_length),
        temperature=TEMPERATURE,
        momentum=TAU,
        two_sided=symmetric == "server",
    )
    return Federation(
        clients, server, both_views=symmetric == "full", align_momentum=align_momentum
    )


def make_sgd(
    federation: Federation, *, server_lr: float = 0.05, client_lr: float = 0.1
) -> Optimizer:
    """Return the federation's optimizer, with a weight decay that shows."""
    return make_optimizer(
        federation, server_lr=server_lr, client_lr=client_lr, momentum=0.9, weight_decay=5e-3
    )


def make_views(seed: int, pool_size: int, batch: int, *, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Return two views (P, b, 3, size, size) of standard normal pixels."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, pool_size, batch, 3, size, size)
    view1, view2 = torch.randn(shape, generator=generator, dtype=torch.float64)
    return view1, view2


def one_group(pool_size: int, batch: int) -> tuple[ClientGroup, ...]:
    """Return the groups of a pool whose clients are all there with equally many rows."""
    return (ClientGroup(torch.arange(pool_size), batch),)


def make_step(
    views: tuple[Tensor, Tensor],
    *,
    pool: Sequence[int] | None = None,
    labels: Tensor | None = None,
    sync_due: bool = False,
) -> Step:
    """Return the step of two views (P, b, 3, H, W) of a pool, by default clients 0 to P - 1."""
    pool_size, batch = views[0].shape[:2]
    view1, view2 = (view.flatten(0, 1) for view in views)
    ids = torch.arange(pool_size) if pool is None else torch.tensor(pool)
    groups = one_group(pool_size, batch)
    return Step(view1, view2, labels, ids, groups, 0, 0, new_round=False, sync_due=sync_due)


def train_step(
    federation: Federation,
    optimizer: Optimizer,
    pool: Sequence[int],
    views: tuple[Tensor, Tensor],
    *,
    sync: bool = False,
) -> ServerOutput:
    """Do what the LightningModule does for one step."""
    federation.clients.enter(torch.tensor(pool), optimizer)
    optimizer.zero_grad()
    output: ServerOutput = federation.run(make_step(views, pool=pool))
    output.loss.backward()
    optimizer.step()
    if sync:
        federation.synchronise()
    return output
