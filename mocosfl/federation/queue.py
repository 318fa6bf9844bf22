"""The queue of keys that the contrastive loss takes as negatives.

Q: queues, 1 where all clients share one, else N. L: keys in each queue. D: embedding size.
"""

import torch
from torch import Tensor, nn


class KeyQueue(nn.Module):
    """Ring buffers of the newest keys; the place to write next is kept for each.

    A batch that runs over the end wraps in its middle, so that exactly L keys are kept.

    Source: He et al. 2020, "Momentum contrast", algorithm 1.
    """

    keys: Tensor  # (Q, L, D), each key of length 1
    pointers: Tensor  # (Q,)

    def __init__(
        self, num_queues: int, length: int, *, dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        keys = torch.randn(num_queues, length, dim, generator=generator)
        self.register_buffer("keys", nn.functional.normalize(keys, dim=2))
        self.register_buffer("pointers", torch.zeros(num_queues, dtype=torch.long))

    @property
    def length(self) -> int:
        """Keys in each queue."""
        return self.keys.shape[1]

    def negatives(self, queues: Tensor) -> Tensor:
        """Return a copy (len(queues), L, D): enqueueing must not change what backward needs."""
        return self.keys[queues]

    @torch.no_grad()
    def enqueue(self, queues: Tensor, keys: Tensor) -> None:
        """Write each queue's newest keys over its oldest.

        Args:
            queues: (q,) queues to write to, without repetition.
            keys: (q, m, D) keys for each, in the order of writing; m at most L.
        """
        num_keys = keys.shape[1]
        assert num_keys <= self.length  # a rule of `validate`
        offsets = torch.arange(num_keys, device=keys.device)
        places = (self.pointers[queues, None] + offsets) % self.length  # (q, m)
        self.keys[queues[:, None], places] = keys.to(self.keys.dtype)
        self.pointers[queues] = (self.pointers[queues] + num_keys) % self.length
