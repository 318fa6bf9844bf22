"""The whole federation as one differentiable program.

P: clients in the pool. b: images a client. B = P * b, or 2 * P * b where both views travel.
"""

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from mocosfl.client_pool import ClientPool
from mocosfl.server import Server, ServerOutput


class Federation(nn.Module):
    """Clients and server; one forward pass is one training step up to the loss."""

    def __init__(
        self, clients: ClientPool, server: Server, *, both_views: bool, align_momentum: bool
    ) -> None:
        """Join both sides.

        Args:
            clients: the heads.
            server: trunk, queue and loss.
            both_views: each client runs both views through both heads, so that the gradient of
                both comes back (`moco.symmetric=full`, MonAcoSFL).
            align_momentum: a sync averages the momentum heads too (MonAcoSFL).
        """
        super().__init__()
        self.clients, self.server = clients, server
        self.both_views, self.align_momentum = both_views, align_momentum

    def forward(self, view1: Tensor, view2: Tensor) -> ServerOutput:
        """Run a step on two views (P, b, 3, H, W) of the pool's images."""
        if self.both_views:
            view1, view2 = torch.cat([view1, view2], 1), torch.cat([view2, view1], 1)
        smashed = self.clients(view1, view2)
        output: ServerOutput = self.server(smashed.query, smashed.key, self.clients.pool)
        return output

    def synchronise(self) -> None:
        """Average the pool's heads and give the mean to all clients."""
        self.clients.synchronise(self.align_momentum)

    def encoder(self) -> nn.Sequential:
        """Return synchronised head and trunk, (B, 3, H, W) -> features (B, F).

        The parts are the federation's own, not copies.
        """
        return nn.Sequential(self.clients.average_head(), self.server.trunk)


def make_optimizer(
    federation: Federation,
    *,
    server_lr: float,
    client_lr: float,
    momentum: float,
    weight_decay: float,
) -> Optimizer:
    """Return one SGD with a parameter group for the server and one for all the heads.

    Frozen heads have no group. Learning rates are at least 0; 0.06 published for both.
    """
    server = [p for p in federation.server.parameters() if p.requires_grad]
    groups = [{"params": server, "lr": server_lr, "name": "server"}]
    clients = [p for p in federation.clients.online.parameters() if p.requires_grad]
    if clients:
        groups.append({"params": clients, "lr": client_lr, "name": "clients"})
    return SGD(groups, lr=server_lr, momentum=momentum, weight_decay=weight_decay, fused=True)
