"""The server: trunk, projector, their momentum copies, the queue, and the loss.

B: rows of a step, in the order of its groups. D: embedding size. q: queues that a part of the rows
sees.

Where several processes share a step, each has the rows of its own clients. Their keys are gathered,
so that all hold the same queue; see `SmashedStep.in_shares` for the loss.
"""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl.federation.ema import update_ema
from mocosfl.federation.loss import contrastive_loss
from mocosfl.federation.queue import KeyQueue
from mocosfl.federation.step_input import ClientGroup, Everyone, without_rows


class ServerOutput(NamedTuple):
    """What a step on the server gives.

    Of a two-sided loss, accuracy and spread are those of the second pass, f(k, q), as in the
    published code.
    """

    loss: Tensor  # scalar, nats; the sum of both passes where the loss is two-sided
    accuracy: Tensor  # scalar, fraction; contrastive: how often the positive has the largest logit
    embedding_std: Tensor  # scalar; spread of the embeddings times sqrt(D): 1 = evenly spread


class NewKeys(NamedTuple):
    """Keys for some queues, m each, in the order of writing."""

    queues: Tensor  # (q,)
    keys: Tensor  # (q, m, D)


class Passes(NamedTuple):
    """What one pass, or two, have computed."""

    output: ServerOutput
    keys: tuple[NewKeys, ...]  # of all processes, to enqueue; () for a method with labels


class SmashedStep(NamedTuple):
    """A step as it crosses the cut."""

    query: Tensor  # (B, c, h, w); its gradient goes back to the clients
    key: Tensor | None  # (B, c, h, w), without gradient; contrastive methods
    labels: Tensor | None  # (B,) int64; supervised methods
    pool: Tensor  # (P,) ids of the clients in the pool
    groups: tuple[ClientGroup, ...]  # whose rows these are
    everyone: Everyone | None = None  # of several processes; the rest is then this process's own

    def of_all(self, *rows: Tensor) -> list[Tensor]:
        """Gather rows (n, D) of all processes, as one transfer; one process's as they are."""
        if self.everyone is None:
            return list(rows)
        return list(self.everyone.of_all(torch.stack(rows, 1).detach()).unbind(1))

    def in_shares(self, output: ServerOutput) -> ServerOutput:
        """Turn means over this process's rows into its shares of those over all rows.

        The sum of the processes' shares is the mean over all rows: of the loss, of the accuracy,
        and of the gradients.
        """
        if self.everyone is None:
            return output
        share = sum(group.num_rows for group in self.groups) / sum(self.everyone.num_rows)
        return output._replace(loss=output.loss * share, accuracy=output.accuracy * share)


def embedding_std(embeddings: Tensor) -> Tensor:
    """Return the spread of embeddings (B, D) of length 1, times sqrt(D); NaN for a single row."""
    # Without Bessel's correction, 0 / 0 for one row, which torch would warn of at each step.
    std = embeddings.detach().std(0, correction=0).mean() * embeddings.shape[1] ** 0.5
    return std if len(embeddings) > 1 else torch.full_like(std, torch.nan)


class _Part(NamedTuple):
    """Consecutive rows that see the same queues, equally many each."""

    queues: Tensor  # (q,)
    num_rows: int


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

    def update_momentum(self) -> None:
        """Move the momentum copies towards trunk and projector."""
        update_ema(self.momentum_trunk, self.trunk, self.tau)
        update_ema(self.momentum_projector, self.projector, self.tau)

    def contrast(self, step: SmashedStep) -> Passes:
        """Compute a step's loss against the queue as it is: one pass, or two.

        Several processes exchange the new keys here, and the embeddings whose spread is logged.
        """
        if not step.groups:
            return self._without_rows(step)
        assert step.key is not None
        parts = self._parts(step.pool, step.groups)
        negatives = [self.queue.negatives(part.queues) for part in parts]
        zs, ys = self._embed(step.query, step.key)
        passes = [self._pass(z, y, parts, negatives) for z, y in zip(zs, ys, strict=True)]
        loss = torch.stack([loss for loss, _ in passes]).sum()
        _, last_accuracy = passes[-1]
        # y(query) before y(key): the order of the published two-sided loss.
        *keys, last_z = step.of_all(*ys[::-1], zs[-1])
        output = ServerOutput(loss, last_accuracy, embedding_std(last_z))
        return Passes(step.in_shares(output), self._new_keys(keys, step))

    def _without_rows(self, step: SmashedStep) -> Passes:
        """Take part in a step of the other processes."""
        none = self.queue.keys.new_zeros(0, self.queue.keys.shape[2])
        *keys, last_z = step.of_all(*[none] * self.num_passes, none)
        zero = without_rows(self).sum() + step.query.sum()
        output = ServerOutput(zero, zero.detach(), embedding_std(last_z))
        return Passes(output, self._new_keys(keys, step))

    def enqueue(self, new_keys: Sequence[NewKeys]) -> None:
        """Write the keys of a step over the oldest ones."""
        for queues, keys in new_keys:
            self.queue.enqueue(queues, keys)

    advice = "Lower the learning rates, or raise moco.temperature"

    @property
    def num_passes(self) -> int:
        """Losses that are added up in a step."""
        return 2 if self.two_sided else 1

    @property
    def uniform_loss(self) -> float:
        """Loss of embeddings that tell nothing, nats: ln(keys + 1) a pass."""
        return self.num_passes * math.log(self.queue.length + 1)

    def _parts(self, pool: Tensor, groups: Sequence[ClientGroup]) -> list[_Part]:
        if len(self.queue.pointers) == 1:  # shared by all
            return [_Part(torch.zeros_like(pool[:1]), sum(group.num_rows for group in groups))]
        return [_Part(pool[group.places], group.num_rows) for group in groups]

    def _pass(
        self, z: Tensor, y: Tensor, parts: list[_Part], negatives: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return loss and accuracy of one pass, means over all rows."""
        sizes = [part.num_rows for part in parts]
        results = [
            contrastive_loss(a, b, negatives=keys, temperature=self.temperature)
            for a, b, keys in zip(z.split(sizes), y.split(sizes), negatives, strict=True)
        ]
        if len(results) == 1:
            return results[0]
        shares = [size / len(z) for size in sizes]
        losses = [r.loss * share for r, share in zip(results, shares, strict=True)]
        accuracies = [r.contrast_accuracy * share for r, share in zip(results, shares, strict=True)]
        return torch.stack(losses).sum(), torch.stack(accuracies).sum()

    def _new_keys(self, keys: Sequence[Tensor], step: SmashedStep) -> tuple[NewKeys, ...]:
        """Sort the keys (B, D) of all processes' rows, one tensor a pass, by queue."""
        everyone = step.everyone or step
        parts = self._parts(everyone.pool, everyone.groups)
        sizes = [part.num_rows for part in parts]
        sorted_keys = []
        for part, *blocks in zip(parts, *(y.split(sizes) for y in keys), strict=True):
            by_queue = [y.reshape(len(part.queues), -1, y.shape[1]) for y in blocks]
            sorted_keys.append(NewKeys(part.queues, torch.cat(by_queue, 1)))
        return tuple(sorted_keys)

    def _embed(self, query: Tensor, key: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return z and y of each pass, (B, D) each.

        The trunk runs both passes as one batch. The projector runs them one after the other: its
        BatchNorm (large_v2) is over the rows of a pass.
        """
        online, momentum = [query], [key]
        if self.two_sided:
            online, momentum = [query, key], [key, query]
        features = self.trunk(torch.cat(online)).chunk(len(online))
        z = tuple(self._normalise(self.projector(part)) for part in features)
        with torch.no_grad():
            features = self.momentum_trunk(torch.cat(momentum)).chunk(len(momentum))
            y = tuple(self._normalise(self.momentum_projector(part)) for part in features)
        return z, y

    def _normalise(self, embedding: Tensor) -> Tensor:
        return F.normalize(embedding.to(self._dtype), dim=1)

    @property
    def _dtype(self) -> torch.dtype:
        return self.queue.keys.dtype


class SupervisedServer(nn.Module):
    """The server of the supervised baselines: trunk, classifier and cross-entropy.

    It has the methods of `Server`, so that a step is the same; its pass is against labels.
    """

    num_passes = 1
    advice = "Lower the learning rates"

    def __init__(self, trunk: nn.Module, classifier: nn.Module, num_classes: int) -> None:
        """Put the server together.

        Args:
            trunk: smashed data (B, c, h, w) -> features (B, F).
            classifier: features (B, F) -> logits (B, num_classes).
            num_classes: of the labels.
        """
        super().__init__()
        self.trunk, self.projector = trunk, classifier
        self.num_classes = num_classes
        self.uniform_loss = math.log(num_classes)

    def update_momentum(self) -> None:
        """Do nothing: labels need no momentum copies."""

    def contrast(self, step: SmashedStep) -> Passes:
        """Compute a step's loss against its labels."""
        if not step.groups:
            return self._without_rows(step)
        assert step.labels is not None
        logits = self.projector(self.trunk(step.query))
        # Cross-entropy in fp32 at least, whatever the autocast.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        accuracy = (logits.detach().argmax(1) == step.labels).to(torch.float32).mean()
        loss = F.cross_entropy(logits, step.labels)
        output = ServerOutput(loss, accuracy, self._spread(step, logits))
        return Passes(step.in_shares(output), ())

    def _without_rows(self, step: SmashedStep) -> Passes:
        """Take part in a step of the other processes."""
        zero = without_rows(self).sum() + step.query.sum()
        none = zero.new_zeros(0, self.num_classes)
        return Passes(ServerOutput(zero, zero.detach(), self._spread(step, none)), ())

    def enqueue(self, new_keys: Sequence[NewKeys]) -> None:
        """Do nothing: labels need no queue."""

    @staticmethod
    def _spread(step: SmashedStep, logits: Tensor) -> Tensor:
        (of_all,) = step.of_all(logits.detach())
        return embedding_std(F.normalize(of_all, dim=1))
