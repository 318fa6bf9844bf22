"""MocoSFL as a plain loop over clients: the oracle that the fast, folded path must equal.

It reads as the paper's algorithm and shares only the models with the package: the clients are
ordinary modules with an optimizer each, and the queue is filled one key at a time.

Source: Li et al. 2023, "MocoSFL", algorithm 1; Przewiezlikowski et al. 2024, "MonAcoSFL", for
`symmetric="full"` and `align_momentum`.

Dimensions: N clients, P of them in the pool, b images a client, B rows on the server (P * b, twice
that for "full"), D embedding, K queue length.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Symmetric = Literal["none", "server", "full"]


class StepResult(NamedTuple):
    """What one step shows: scalars, and the smashed tensors (B, c, h, w) in pool order."""

    loss: float
    contrast_accuracy: float
    smashed_query: Tensor
    smashed_key: Tensor
    smashed_grad: Tensor


class RingQueue:
    """Keys (D, K) and the column that the next key overwrites."""

    def __init__(self, columns: Tensor) -> None:
        self.columns = columns.clone()
        self.pointer = 0

    def enqueue(self, key: Tensor) -> None:
        """Write one key (D,), into a copy: the backward pass still needs the old columns."""
        self.columns = self.columns.clone()
        self.columns[:, self.pointer] = key
        self.pointer = (self.pointer + 1) % self.columns.shape[1]


class ReferenceFederation:
    """N clients and a server, all starting equal.

    Args:
        head: initial client part; copied N times.
        server: initial trunk followed by projector.
        num_clients: N.
        queues: initial keys, each (D, K): one tensor shared by all, or N private ones (K // N).
        symmetric: "none": one pass (q, k); "server": also (k, q); "full": clients run both views.
        align_momentum: a sync averages the momentum heads too.
        client_lr: 0 freezes the heads.
    """

    def __init__(
        self,
        head: nn.Module,
        server: nn.Module,
        *,
        num_clients: int,
        queues: Sequence[Tensor],
        symmetric: Symmetric,
        align_momentum: bool,
        temperature: float,
        server_lr: float,
        client_lr: float,
        tau: float = 0.99,
        sgd_momentum: float = 0.9,
        weight_decay: float = 5e-4,
    ) -> None:
        assert len(queues) in (1, num_clients)
        self.symmetric, self.align_momentum = symmetric, align_momentum
        self.temperature, self.tau = temperature, tau
        self.heads = [deepcopy(head) for _ in range(num_clients)]
        self.momentum_heads = [deepcopy(head) for _ in range(num_clients)]
        self.server, self.momentum_server = deepcopy(server), deepcopy(server)
        self.queues = [RingQueue(columns) for columns in queues]

        def sgd(module: nn.Module, lr: float) -> torch.optim.SGD:
            return torch.optim.SGD(
                module.parameters(), lr, momentum=sgd_momentum, weight_decay=weight_decay
            )

        self.client_optimizers = [sgd(head, client_lr) for head in self.heads]
        self.server_optimizer = sgd(self.server, server_lr)
        self.scales: dict[int, float] = {}  # lambda of divergence-aware averaging

    def step(
        self, pool: Sequence[int], view1: Sequence[Tensor], view2: Sequence[Tensor]
    ) -> StepResult:
        """Train on one batch; `view1[p]` and `view2[p]` are (b, 3, H, W) of client `pool[p]`."""
        # 1-2. Each client runs its own views through its heads.
        queries, keys = [], []
        for client, x1, x2 in zip(pool, view1, view2, strict=True):
            if self.symmetric == "full":
                x1, x2 = torch.cat([x1, x2]), torch.cat([x2, x1])
            queries.append(self.heads[client](x1))
            self.update_momentum(self.momentum_heads[client], self.heads[client])
            with torch.no_grad():
                keys.append(self.momentum_heads[client](x2))
        # 3. The server receives the smashed data in pool order; the clients keep their graphs.
        q = torch.cat(queries).detach().requires_grad_()
        k = torch.cat(keys)
        owners = [c for c, query in zip(pool, queries, strict=True) for _ in query]
        # 4-5. Momentum server, then the contrastive passes, both against the old queue.
        self.update_momentum(self.momentum_server, self.server)
        loss, accuracy, new_keys = self.contrast(q, k, owners)
        if self.symmetric == "server":
            second_loss, accuracy, keys_of_q = self.contrast(k, q.detach(), owners)
            loss, new_keys = loss + second_loss, torch.cat([keys_of_q, new_keys])
            owners = owners + owners
        # 6. Enqueue each key in its owner's queue.
        for owner, key in zip(owners, new_keys, strict=True):
            self.queue_of(owner).enqueue(key)
        # 7. Backward: the server steps, then each client with its rows of the gradient.
        self.server_optimizer.zero_grad()
        loss.backward()
        self.server_optimizer.step()
        assert q.grad is not None
        gradients = q.grad.split([len(query) for query in queries])
        for client, query, gradient in zip(pool, queries, gradients, strict=True):
            self.client_optimizers[client].zero_grad()
            query.backward(gradient)
            self.client_optimizers[client].step()
        return StepResult(loss.item(), accuracy, q.detach(), k, q.grad)

    def contrast(self, a: Tensor, b: Tensor, owners: list[int]) -> tuple[Tensor, float, Tensor]:
        """Return loss, top-1 fraction and keys (B, D) of one pass: a online, b through momentum."""
        z = F.normalize(self.server(a), dim=1)  # (B, D)
        with torch.no_grad():
            y = F.normalize(self.momentum_server(b), dim=1)  # (B, D)
        logits = []
        for row, owner in enumerate(owners):
            negatives = z[row] @ self.queue_of(owner).columns  # (K,)
            logits.append(torch.cat([(z[row] @ y[row])[None], negatives]) / self.temperature)
        table = torch.stack(logits)  # (B, 1 + K), the positive in column 0
        loss = F.cross_entropy(table, torch.zeros(len(table), dtype=torch.long))
        return loss, (table.argmax(dim=1) == 0).float().mean().item(), y

    def queue_of(self, client: int) -> RingQueue:
        """Return the shared queue, or the client's own."""
        return self.queues[0 if len(self.queues) == 1 else client]

    @torch.no_grad()
    def update_momentum(self, momentum: nn.Module, online: nn.Module) -> None:
        """Move a momentum copy towards its online twin."""
        for slow, fast in zip(momentum.parameters(), online.parameters(), strict=True):
            slow.copy_(self.tau * slow + (1 - self.tau) * fast)

    def sync(
        self,
        pool: Sequence[int],
        *,
        weights: Sequence[float] | None = None,
        strength: float | None = None,
    ) -> list[float]:
        """8. Give the mean of the pool's heads to all N clients; optimizers stay as they are.

        Args:
            pool: clients whose heads count.
            weights: how much each counts; None: all the same.
            strength: divergence-aware averaging: what a client keeps of its own at its first sync.

        Returns:
            How far each head of the pool was from the mean.
        """
        weights = [1.0] * len(pool) if weights is None else weights
        banks = [self.heads, self.momentum_heads] if self.align_momentum else [self.heads]
        distances: list[float] = []
        for bank in banks:
            own = {client: deepcopy(bank[client].state_dict()) for client in pool}
            counted = list(zip(weights, own.values(), strict=True))
            names = list(bank[0].state_dict())
            mean = {n: sum(w * s[n] for w, s in counted) / sum(weights) for n in names}
            for module in bank:
                module.load_state_dict(mean)
            if bank is self.momentum_heads:
                continue
            for client, state in own.items():
                distance = sum((state[n] - mean[n]).norm().item() for n in names)
                distances.append(distance)
                if strength is None:
                    continue
                scale = self.scales.setdefault(client, strength / distance)
                mu = min(scale * distance, 1.0)
                mixed = {n: mu * state[n] + (1 - mu) * mean[n] for n in names}
                bank[client].load_state_dict(mixed)
        return distances
