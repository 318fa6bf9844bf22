"""The server: trunk, projector, their momentum copies, the queue, and the loss.

B: rows of a step, in pool order. D: embedding size.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl.ema import update_ema
from mocosfl.loss import contrastive_loss
from mocosfl.queue import KeyQueue


class ServerOutput(NamedTuple):
    """What a step on the server gives."""

    loss: Tensor  # scalar, nats; the sum of both passes where the loss is two-sided
    contrast_accuracy: Tensor  # scalar, fraction; of the last pass
    embedding_std: Tensor  # scalar; spread of the embeddings times sqrt(D): 1 = evenly spread


class Server(nn.Module):
    """The server's side of the federation."""

    def __init__(
        self,
        trunk: nn.Module,
        projector: nn.Module,
        queue: KeyQueue,
        *,
        temperature: float,
        momentum: float,
        two_sided: bool,
    ) -> None:
        """Put the server together.

        Args:
            trunk: smashed data (B, c, h, w) -> features (B, F).
            projector: features (B, F) -> embeddings (B, D).
            queue: one queue for all clients, or one for each.
            temperature: T, above 0.
            momentum: tau of the momentum copies.
            two_sided: add the loss with the roles of query and key exchanged
                (`moco.symmetric=server`).
        """
        super().__init__()
        self.trunk, self.projector, self.queue = trunk, projector, queue
        self.momentum_trunk = copy.deepcopy(trunk).requires_grad_(False)
        self.momentum_projector = copy.deepcopy(projector).requires_grad_(False)
        self.temperature, self.tau, self.two_sided = temperature, momentum, two_sided

    def forward(self, query: Tensor, key: Tensor, pool: Tensor) -> ServerOutput:
        """Compute a step's loss and enqueue its keys.

        Args:
            query: (B, c, h, w) smashed queries; their gradient goes back to the clients.
            key: (B, c, h, w) smashed keys, without gradient.
            pool: (P,) ids of the clients that the rows belong to, B / P rows each.
        """
        update_ema(self.momentum_trunk, self.trunk, self.tau)
        update_ema(self.momentum_projector, self.projector, self.tau)
        shared = len(self.queue.pointers) == 1
        queues = torch.zeros_like(pool[:1]) if shared else pool
        negatives = self.queue.negatives(queues)
        passes = [(query, key), (key, query)] if self.two_sided else [(query, key)]
        losses, keys = [], []
        for online_input, momentum_input in passes:
            z = self._embed(online_input)  # (B, D)
            y = self._embed_key(momentum_input)  # (B, D)
            result = contrastive_loss(
                z, y, negatives=negatives, temperature=self.temperature
            )
            losses.append(result.loss)
            keys.append(y.reshape(len(queues), -1, y.shape[1]))  # (Q, B / Q, D)
        # y(query) before y(key): the order of the published two-sided loss.
        self.queue.enqueue(queues, torch.cat(keys[::-1], 1))
        # Without Bessel's correction, 0 / 0 for one row, which torch would warn of at each step.
        std = z.detach().std(0, correction=0).mean() * z.shape[1] ** 0.5
        std = std if len(z) > 1 else torch.full_like(std, torch.nan)
        return ServerOutput(torch.stack(losses).sum(), result.contrast_accuracy, std)

    def _embed(self, smashed: Tensor) -> Tensor:
        return F.normalize(self.projector(self.trunk(smashed)).to(self._dtype), dim=1)

    @torch.no_grad()
    def _embed_key(self, smashed: Tensor) -> Tensor:
        embedding = self.momentum_projector(self.momentum_trunk(smashed))
        return F.normalize(embedding.to(self._dtype), dim=1)

    @property
    def _dtype(self) -> torch.dtype:
        return self.queue.keys.dtype
