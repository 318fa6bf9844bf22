"""The momentum (EMA) copies."""

import torch
from torch import nn


@torch.no_grad()
def update_ema(momentum: nn.Module, online: nn.Module, tau: float) -> None:
    """Move each parameter of the momentum copy: tau * momentum + (1 - tau) * online, in place.

    Args:
        momentum: the copy.
        online: module of the same parameters, in the same order.
        tau: decay in [0, 1]; 0.99 published.
    """
    copies = [parameter.detach() for parameter in momentum.parameters()]
    sources = [parameter.detach() for parameter in online.parameters()]
    if copies:  # a trunk behind the last cut has none
        # lerp and not two products: where both are equal, not a bit changes.
        torch._foreach_lerp_(copies, sources, 1.0 - tau)
