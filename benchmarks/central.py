"""The bounds: one network in place of a pool, in a plain training loop.

`central` is MoCo as anyone would train it on one machine: both views run through the whole network
and its momentum copy. `shared` does a federation's own arithmetic, but with one head for all
clients: the head runs once a view, and the gradient of the query's rows alone comes back.

Both look at as many rows as `ours`, through the same layers, views, queue, optimizer and precision.
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from benchmarks.configuration import Run, open_run
from benchmarks.contest import Pace
from mocosfl.config.derived import pool_size
from mocosfl.config.schema import Config
from mocosfl.data.augmentation import draw_uniforms
from mocosfl.data.federated_data import FederatedData
from mocosfl.federation.build import build_federation
from mocosfl.federation.ema import update_ema
from mocosfl.federation.federation import Federation
from mocosfl.federation.loss import contrastive_loss
from mocosfl.federation.optimizer import make_optimizer
from mocosfl.federation.queue import KeyQueue
from mocosfl.federation.server import Server
from mocosfl.federation.step_input import ClientGroup, Step
from mocosfl.training.build import compile_networks


class CentralMoco:
    """MoCo with a two-sided loss on one network."""

    def __init__(
        self,
        network: nn.Module,
        queue: KeyQueue,
        *,
        temperature: float,
        tau: float,
        lr: float,
        sgd_momentum: float,
        weight_decay: float,
    ) -> None:
        """Put it together.

        Args:
            network: images (B, 3, H, W) -> embeddings (B, D).
            queue: of keys.
            temperature: T of the loss.
            tau: of the momentum copy.
            lr: of SGD, and so are the others.
            sgd_momentum: of SGD.
            weight_decay: of SGD.
        """
        self.network = network.requires_grad_(True)
        self.momentum = copy.deepcopy(network).requires_grad_(False)
        self.queue, self.temperature, self.tau = queue, temperature, tau
        self.optimizer = SGD(
            network.parameters(), lr, momentum=sgd_momentum, weight_decay=weight_decay, fused=True
        )

    def loss(self, view1: Tensor, view2: Tensor) -> Tensor:
        """Return the loss of both views (B, 3, H, W), and enqueue their keys."""
        update_ema(self.momentum, self.network, self.tau)
        first = torch.zeros_like(self.queue.pointers[:1])
        negatives, dtype = self.queue.negatives(first), self.queue.keys.dtype
        losses, keys = [], []
        # Both passes as one batch, as ours.
        z = F.normalize(self.network(torch.cat([view1, view2])).to(dtype), dim=1)
        with torch.no_grad():
            y = F.normalize(self.momentum(torch.cat([view2, view1])).to(dtype), dim=1)
        for queries, key in zip(z.chunk(2), y.chunk(2), strict=True):
            keys.append(key)
            contrast = contrastive_loss(
                queries, key, negatives=negatives, temperature=self.temperature
            )
            losses.append(contrast.loss)
        self.queue.enqueue(first, torch.cat(keys[::-1])[None])
        return torch.stack(losses).sum()

    def step(self, view1: Tensor, view2: Tensor, *, bf16: bool) -> Tensor:
        """Train on two views (B, 3, H, W); returns the loss."""
        with torch.autocast(view1.device.type, torch.bfloat16, enabled=bf16):
            loss = self.loss(view1, view2)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def central(run: Run, pace: Pace) -> None:
    """Train one network on the run's images."""
    config = open_run(run.overrides)
    federation = build_federation(_one_client(config))
    server = federation.server
    assert isinstance(server, Server)
    network = nn.Sequential(federation.clients.head, server.trunk, server.projector)
    settings = config.optimizer
    moco = CentralMoco(
        network.to(run.device),
        server.queue.to(run.device),
        temperature=config.moco.temperature,
        tau=config.moco.momentum,
        lr=settings.server_lr,
        sgd_momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    if config.trainer.compile:
        moco.network.compile(mode=config.trainer.compile_mode)
        moco.momentum.compile(mode=config.trainer.compile_mode)
    views = _views(config, run.device)
    pace.begin()
    for view1, view2 in views:
        moco.step(view1, view2, bf16=config.trainer.precision == "bf16")
        pace.step_done()


def shared(run: Run, pace: Pace) -> None:
    """Train a federation of one client that brings all rows."""
    config = open_run(run.overrides)
    federation = build_federation(_one_client(config)).to(run.device)
    if config.trainer.compile:
        compile_networks(federation, config.trainer.compile_mode)
    settings = config.optimizer
    optimizer = make_optimizer(
        federation,
        server_lr=settings.server_lr,
        client_lr=settings.client_lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    views = _views(config, run.device)
    pace.begin()
    for view1, view2 in views:
        with torch.autocast(run.device, torch.bfloat16, enabled=config.trainer.precision == "bf16"):
            output = federation.run(_step_of_one(federation, view1, view2))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        pace.step_done()


def _one_client(config: Config) -> Config:
    one = copy.deepcopy(config)
    one.clients.num_clients, one.clients.participation = 1, 1.0
    one.clients.batch_size = pool_size(config)
    return one


def _step_of_one(federation: Federation, view1: Tensor, view2: Tensor) -> Step:
    pool = federation.clients.pool
    group = ClientGroup(torch.zeros_like(pool), len(view1))
    return Step(view1, view2, None, pool, (group,), 0, 0, new_round=False, sync_due=False)


def _views(config: Config, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the two views of a step's rows, made in the blocks of `ours`; images at random."""
    rows = pool_size(config)
    maker = FederatedData(config).view_maker(torch.device(device))
    order, numbers = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)
    num_images = len(maker.images)
    block = max(1, config.trainer.view_block_images // rows) * rows
    while True:
        indices = order.choice(num_images, block, replace=block > num_images)
        uniforms = torch.stack([draw_uniforms(numbers, block) for _ in range(2)])
        view1, view2 = maker.views(indices, uniforms)
        yield from zip(view1.split(rows), view2.split(rows), strict=True)
