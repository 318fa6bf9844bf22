"""The whole federation as one differentiable program.

P: clients in the pool. b: images a client. B: rows of a step; twice as many where both views
travel.
"""

import torch
from torch import Tensor, nn

from mocosfl.federation.averaging import Spread
from mocosfl.federation.client_pool import ClientPool
from mocosfl.federation.ranks import Ranks
from mocosfl.federation.server import Server, ServerOutput, SmashedStep, SupervisedServer
from mocosfl.federation.step import ClientGroup, Step, doubled_groups, rows_by_group
from mocosfl.models.whole_network import WholeNetwork


def in_both_orders(
    view1: Tensor, view2: Tensor, groups: tuple[ClientGroup, ...]
) -> tuple[Tensor, Tensor]:
    """Give each client [x1; x2] and [x2; x1] of its rows, (B, ...) -> (2B, ...)."""
    pairs = zip(rows_by_group(view1, groups), rows_by_group(view2, groups), strict=True)
    both = [(torch.cat([x1, x2], 1), torch.cat([x2, x1], 1)) for x1, x2 in pairs]
    if not both:
        return view1, view2  # none of this process's clients is there
    query, key = zip(*both, strict=True)
    return torch.cat([x.flatten(0, 1) for x in query]), torch.cat([x.flatten(0, 1) for x in key])


class Federation(nn.Module):
    """Clients and server; one forward pass is one training step up to the loss."""

    def __init__(
        self,
        clients: ClientPool,
        server: Server | SupervisedServer,
        *,
        both_views: bool,
        align_momentum: bool,
        whole_network: bool = False,
    ) -> None:
        """Join both sides.

        Args:
            clients: the heads.
            server: trunk, queue and loss; or the classifier of a supervised method.
            both_views: each client runs both views through both heads, so that the gradient of
                both comes back (`moco.symmetric=full`, MonAcoSFL).
            align_momentum: a sync averages the momentum heads too (MonAcoSFL).
            whole_network: the clients' heads are whole networks, and the "server" stands for each
                client's own loss: the mean over its own rows.
        """
        super().__init__()
        self.clients, self.server = clients, server
        self.both_views, self.align_momentum = both_views, align_momentum
        self.whole_network = whole_network

    def forward(self, step: Step) -> ServerOutput:
        """Run a step up to its loss."""
        output: ServerOutput = self.server(self.smash(step))
        return output

    def smash(self, step: Step, *, standing_still: bool = False) -> SmashedStep:
        """Run the clients' side of a step.

        Args:
            step: what the clients look at.
            standing_still: the heads are not trained in this step.
        """
        query_view, key_view, groups = self.views_up(step)
        query, key = self.clients(query_view, key_view, groups, standing_still=standing_still)
        everyone = step.everyone
        if everyone is not None and self.both_views:
            everyone = everyone.doubled()
        if everyone is not None and query.requires_grad:
            # The server's gradients are averaged over the processes, a client's rows are not.
            query.register_hook(lambda gradient: gradient / everyone.num_processes)
        if self.whole_network:
            num_rows = len(query) if everyone is None else sum(everyone.num_rows)
            query = _own_losses(query, groups, num_rows)
        elif torch.is_autocast_enabled(query.device.type):
            # What crosses the cut is as small as the precision allows, whatever layer comes last.
            dtype = torch.get_autocast_dtype(query.device.type)
            query, key = query.to(dtype), None if key is None else key.to(dtype)
        return SmashedStep(query, key, step.labels, step.pool, groups, everyone)

    def views_up(self, step: Step) -> tuple[Tensor, Tensor | None, tuple[ClientGroup, ...]]:
        """Return what the online heads and the momentum heads look at, and whose rows these are."""
        if not self.both_views:
            return step.view1, step.view2, step.groups
        assert step.view2 is not None
        query_view, key_view = in_both_orders(step.view1, step.view2, step.groups)
        return query_view, key_view, doubled_groups(step.groups)

    @property
    def ranks(self) -> Ranks:
        """The process among those that share each pool."""
        return self.clients.ranks

    def synchronise(self, places: Tensor | None = None) -> Spread | None:
        """Average the pool's heads and give the mean to all clients; see `ClientPool`."""
        return self.clients.synchronise(self.align_momentum, places)

    def encoder(self) -> nn.Sequential:
        """Return synchronised head and trunk, (B, 3, H, W) -> features (B, F).

        The parts are the federation's own, not copies.
        """
        head = self.clients.average_head()
        if isinstance(head, WholeNetwork):
            return nn.Sequential(head.encoder())
        return nn.Sequential(head, self.server.trunk)

    def projector(self) -> nn.Module:
        """Return what maps the encoder's features to embeddings (or logits)."""
        head = self.clients.average_head()
        return head.projector if isinstance(head, WholeNetwork) else self.server.projector


def _own_losses(query: Tensor, groups: tuple[ClientGroup, ...], num_rows: int) -> Tensor:
    """Make the gradient of a mean over all rows that of each client's mean over its own.

    Args:
        query: (n, D), of this process.
        groups: whose rows these are.
        num_rows: of all processes.
    """
    if not query.requires_grad or not groups:
        return query
    factors = [num_rows / group.batch_size for group in groups for _ in range(group.num_rows)]
    scale = query.new_tensor(factors)[:, None]  # (B, 1)
    query.register_hook(lambda gradient: gradient * scale)
    return query
