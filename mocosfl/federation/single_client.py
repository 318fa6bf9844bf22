"""A client alone: its part of a training step, with an ordinary head.

A client on another machine runs it, and `overhead` measures it. The pool does the same for all of
its clients, folded; weights then differ by rounding alone.

b: images of the client in a step; twice as many rows where both views travel.
"""

import copy

import torch
from torch import Tensor, nn
from torch.optim import SGD

from mocosfl.federation.ema import update_ema


class SingleClient:
    """The head of one client, its momentum copy and its SGD."""

    def __init__(
        self,
        head: nn.Module,
        *,
        frozen: bool,
        both_views: bool,
        tau: float,
        sgd_momentum: float,
        weight_decay: float,
        supervised: bool = False,
    ) -> None:
        """Take a head over.

        Args:
            head: where the client starts from, the momentum head too.
            frozen: the head is not trained.
            both_views: both views run through both heads.
            tau: of the momentum head, in [0, 1].
            sgd_momentum: of SGD.
            weight_decay: L2.
            supervised: the method has labels, and no momentum heads.
        """
        self.frozen, self.both_views, self.tau = frozen, both_views, tau
        self.online = head.requires_grad_(not frozen)
        # The momentum copy of a frozen head stays equal to it.
        shared = frozen or supervised
        self.momentum = head if shared else copy.deepcopy(head).requires_grad_(False)
        self.optimizer = SGD(
            self.online.parameters(),
            lr=0.0,  # each step says its own
            momentum=sgd_momentum,
            weight_decay=weight_decay,
            fused=True,  # as in the pool
        )

    def smash(self, view1: Tensor, view2: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Run the views through the heads; the momentum head moves in between.

        Args:
            view1: (b, 3, H, W).
            view2: (b, 3, H, W); None where the method looks at one view.

        Returns:
            Query with its graph unless the head is frozen, and key without, (b or 2b, c, h, w).
        """
        if view2 is None:
            return self.online(view1), None
        if self.both_views:
            view1, view2 = torch.cat([view1, view2]), torch.cat([view2, view1])
        query = self.online(view1)
        if not self.frozen:
            update_ema(self.momentum, self.online, self.tau)
        with torch.no_grad():
            return query, self.momentum(view2)

    def learn(self, query: Tensor, gradient: Tensor | None, learning_rate: float) -> None:
        """Take the optimizer's step.

        Args:
            query: of `smash`; or the client's own loss, a scalar.
            gradient: with respect to the query, of its shape; None for a loss.
            learning_rate: of this step.
        """
        query.backward(gradient)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
