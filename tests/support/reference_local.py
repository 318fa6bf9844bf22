"""Federated averaging of whole networks as a plain loop: the oracle of `method=fl_moco`.

Each client is MoCo on its own machine: its network, momentum network, queue and optimizer. Shares
only the models with the package.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.reference import RingQueue


class LocalClient:
    """One client that runs MoCo by itself; both views go through both networks."""

    def __init__(
        self, network: nn.Module, columns: Tensor, *, lr: float, tau: float, temperature: float
    ) -> None:
        self.network, self.momentum = deepcopy(network), deepcopy(network)
        self.queue, self.tau, self.temperature = RingQueue(columns), tau, temperature
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr, momentum=0.9, weight_decay=5e-3
        )

    def step(self, x1: Tensor, x2: Tensor) -> float:
        """Train on two views (b, 3, H, W) of the client's own images; returns the loss."""
        z = F.normalize(self.network(torch.cat([x1, x2])), dim=1)  # (2b, D)
        with torch.no_grad():
            pairs = zip(self.momentum.parameters(), self.network.parameters(), strict=True)
            for slow, fast in pairs:
                slow.copy_(self.tau * slow + (1 - self.tau) * fast)
            y = F.normalize(self.momentum(torch.cat([x2, x1])), dim=1)
        positive = (z * y).sum(1, keepdim=True)
        logits = torch.cat([positive, z @ self.queue.columns], 1) / self.temperature
        loss = F.cross_entropy(logits, torch.zeros(len(z), dtype=torch.long))
        for key in y:
            self.queue.enqueue(key)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def federated_average(clients: Sequence[LocalClient], pool: Sequence[int]) -> None:
    """Give the mean of the pool's networks to all clients."""
    states = [clients[client].network.state_dict() for client in pool]
    mean = {name: sum(s[name] for s in states) / len(states) for name in states[0]}
    for client in clients:
        client.network.load_state_dict(mean)
