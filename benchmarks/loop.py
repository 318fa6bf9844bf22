"""The contestant `loop`: a loop over clients, in the manner of the published code.

Each client is a module with an optimizer of its own and makes its own views from Pillow images; the
server runs its two passes one after the other. Always fp32, with PyTorch's own choice of optimizers
and the C library's own handling of memory. The step is that of
the test suite's oracle; only what is absurd at full size is done at once here: the contrast of all
rows with the queue, and the writing of a step's keys. A test holds both equal.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.configuration import Run, compose
from benchmarks.contest import Pace
from benchmarks.pil import pil_pipeline, view_of
from mocosfl.config.derived import aligns_momentum, batch_sizes, pool_size
from mocosfl.config.schema import Config
from mocosfl.data.federated_data import FederatedData
from mocosfl.data.round_plan import plan_round
from mocosfl.data.view_maker import view_settings
from mocosfl.federation.build import build_federation
from mocosfl.federation.server import Server
from tests.support.reference import ReferenceFederation, RingQueue


class BlockQueue(RingQueue):
    """A ring that writes the keys of a step at once, when it is next read."""

    def __init__(self, columns: Tensor) -> None:
        """Keep a copy of the columns (D, K)."""
        self._pending: list[Tensor] = []
        super().__init__(columns)

    @property
    def columns(self) -> Tensor:
        """Keys (D, K), the newest included."""
        if self._pending:
            keys = torch.stack(self._pending, dim=1)
            length = self._columns.shape[1]
            newest = torch.arange(self.pointer - keys.shape[1], self.pointer) % length
            self._columns[:, newest.to(keys.device)] = keys
            self._pending.clear()
        return self._columns

    @columns.setter
    def columns(self, columns: Tensor) -> None:
        self._columns = columns

    def enqueue(self, key: Tensor) -> None:
        """Take note of one key (D,)."""
        self._pending.append(key)
        self.pointer = (self.pointer + 1) % self._columns.shape[1]


class LoopFederation(ReferenceFederation):
    """The oracle with one shared queue, made fit for full size."""

    def prepare(self) -> None:
        """Take over a queue that is just made."""
        assert len(self.queues) == 1  # private queues would need the oracle's loop over rows
        self.queues = [BlockQueue(queue.columns) for queue in self.queues]

    def contrast(self, a: Tensor, b: Tensor, owners: list[int]) -> tuple[Tensor, float, Tensor]:
        """Return what the oracle returns, from one product of all rows with the queue."""
        z = F.normalize(self.server(a), dim=1)  # (B, D)
        with torch.no_grad():
            y = F.normalize(self.momentum_server(b), dim=1)  # (B, D)
        # A copy: the next step writes to the columns, which backward needs.
        negatives = z @ self.queues[0].columns.clone()  # (B, K)
        positive = (z * y).sum(dim=1, keepdim=True)  # (B, 1)
        table = torch.cat([positive, negatives], dim=1) / self.temperature  # (B, 1 + K)
        target = torch.zeros(len(table), dtype=torch.long, device=table.device)
        accuracy = (table.argmax(dim=1) == 0).float().mean().item()
        return F.cross_entropy(table, target), accuracy, y


class PoolViews(NamedTuple):
    """What the pool of a step looks at."""

    pool: list[int]
    view1: list[Tensor]  # (b, 3, H, W) of each client
    view2: list[Tensor]
    sync_due: bool


def loop(run: Run, pace: Pace) -> None:
    """Train the run's federation client by client."""
    config = compose(run.overrides)
    federation = loop_federation(config, run.device)
    steps = _steps(config, run.device)
    pace.begin()
    for pool, view1, view2, sync_due in steps:
        federation.step(pool, view1, view2)
        if sync_due:
            federation.sync(pool)
        pace.step_done()


def loop_federation(config: Config, device: str) -> LoopFederation:
    """Build the loop's federation: the head, server and queue that `ours` starts from."""
    parts = build_federation(config)
    server = parts.server
    assert isinstance(server, Server)
    network = nn.Sequential(deepcopy(server.trunk), deepcopy(server.projector))
    settings = config.optimizer
    federation = LoopFederation(
        parts.clients.head.requires_grad_(True).to(device),
        network.to(device),
        num_clients=config.clients.num_clients,
        queues=[keys.T.to(device) for keys in server.queue.keys],
        symmetric="server",
        align_momentum=aligns_momentum(config),
        temperature=config.moco.temperature,
        server_lr=settings.server_lr,
        client_lr=settings.client_lr,
        tau=config.moco.momentum,
        sgd_momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    federation.prepare()
    return federation


def _steps(config: Config, device: str) -> Iterator[PoolViews]:
    """Yield the steps of the run, each client's views made when it is its turn."""
    data = FederatedData(config)
    images = data.dataset.train.images
    dataset = config.dataset
    pipeline = pil_pipeline(
        view_settings(config),
        image_size=dataset.image_size,
        mean=list(dataset.mean),
        std=list(dataset.std),
    )

    def views(rows: Sequence[int]) -> Tensor:
        pictures = (Image.fromarray(np.asarray(images[row])) for row in rows)
        return torch.stack([view_of(pipeline, picture) for picture in pictures]).to(device)

    for round_index in range(config.clients.num_rounds):
        plan = plan_round(
            data.partition,
            round_index,
            seed=config.seed,
            pool_size=pool_size(config),
            batch_sizes=batch_sizes(config),
            syncs_per_round=config.clients.syncs_per_round,
            num_steps=data.steps_per_round,
        )
        (group,) = plan.groups
        for step, due in enumerate(plan.sync_due):
            own = group.images[step].tolist()
            view1, view2 = ([views(rows) for rows in own] for _ in range(2))
            yield PoolViews(plan.pool.tolist(), view1, view2, bool(due))
