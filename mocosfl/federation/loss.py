"""The contrastive loss of MoCo.

B: rows of a step. D: embedding size. Q: queues that the rows belong to, in equal consecutive parts.
L: keys a queue.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class ContrastiveLoss(NamedTuple):
    """Loss of one pass and how often the positive had the largest logit."""

    loss: Tensor  # scalar, nats, mean over the rows
    contrast_accuracy: Tensor  # scalar, fraction


def contrastive_loss(
    query: Tensor, key: Tensor, *, negatives: Tensor, temperature: float
) -> ContrastiveLoss:
    """Compute the InfoNCE loss of normalised queries against their keys and the queue.

    Args:
        query: (B, D), rows of length 1, with gradient.
        key: (B, D), rows of length 1, the positives.
        negatives: (Q, L, D); the rows of part i of Q see the keys of negatives[i] alone.
        temperature: T, above 0.

    Source: He et al. 2020, "Momentum contrast", eq. 1.
    """
    # Cosines are computed in fp32 whatever the autocast, as in PyTorch's own cross-entropy.
    with torch.autocast(query.device.type, enabled=False):
        key, negatives = key.to(query.dtype), negatives.to(query.dtype)
        positive = (query * key).sum(1, keepdim=True)  # (B, 1)
        parts = query.reshape(negatives.shape[0], -1, query.shape[1])  # (Q, B / Q, D)
        negative = torch.bmm(parts, negatives.transpose(1, 2)).flatten(0, 1)  # (B, L)
        logits = torch.cat([positive, negative], 1) / temperature  # (B, 1 + L)
        target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        accuracy = (logits.detach().argmax(1) == 0).to(torch.float32).mean()
        return ContrastiveLoss(F.cross_entropy(logits, target), accuracy)
