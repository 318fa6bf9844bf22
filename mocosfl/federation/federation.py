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
from mocosfl.federation.step_input import (
    ClientGroup,
    Step,
    doubled_groups,
    places_there,
    rows_by_group,
)
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
    """Clients and server.

    A training step is `smash`, then `learn`, both in the order of the paper, then one backward
    pass, the optimizer's step, and `synchronise` where it is due.
    """

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

    def run(self, step: Step) -> ServerOutput:
        """Run a training step up to its loss; the numbers are those of `mocosfl.federation`.

        `MocoSFL` calls the two parts itself: what crosses the cut may be replayed (`saving`), and
        the penalty needs it.
        """
        return self.learn(self.smash(step))

    def smash(self, step: Step) -> SmashedStep:
        """Run the clients' side of a training step."""
        return self._smash(step, trains=True)

    @torch.no_grad()
    def smash_untrained(self, step: Step) -> SmashedStep:
        """Run the clients' side of a step in which the heads are not trained, and change nothing.

        In it no gradient comes down (`saving`), or the smashed data are only looked at.
        """
        return self._smash(step, trains=False)

    def _smash(self, step: Step, *, trains: bool) -> SmashedStep:
        query_view, key_view, groups = self.views_up(step)
        query = self.clients.query(query_view, groups)  # 2  (B, c, h, w), keeps its graph
        if trains:
            self.clients.note_training()
        key = None
        if key_view is not None:  # a method with labels looks at one view
            if trains:
                self.clients.update_momentum()  # 2
            key = self.clients.key(key_view, groups)  # 2  without gradient
        everyone = step.everyone
        if everyone is not None and self.both_views:
            everyone = everyone.doubled()
        if not self.whole_network:
            query, key = across(query), None if key is None else across(key)  # 3
        return SmashedStep(query, key, step.labels, step.pool, groups, everyone)

    def learn(self, smashed: SmashedStep) -> ServerOutput:
        """Run the server's side of a training step, up to its loss."""
        if self.whole_network:
            _own_losses(smashed)  # 7  each client's loss is the mean over its own rows
        self.server.update_momentum()  # 4
        passes = self.server.contrast(smashed)  # 5  one pass or two, against the queue as it was
        self.server.enqueue(passes.keys)  # 6
        return passes.output  # 7  one backward; 8 `synchronise`, when due

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

    def trained_places(self, step: Step) -> Tensor | None:
        """Return the places in this process's stacks that a step trains, (p,); None for all."""
        return places_there(step.groups, step.pool)

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
        if not self.whole_network:
            return self.server.projector
        head = self.clients.average_head()
        assert isinstance(head, WholeNetwork)
        return head.projector

    def over_all_rows(self, output: ServerOutput) -> ServerOutput:
        """Return a step's figures, to be logged, over the rows of all processes."""
        loss, accuracy, std = (value.detach() for value in output)
        if self.ranks.number > 1:  # what each has are shares, see `SmashedStep.in_shares`
            (total,) = self.ranks.sum([torch.stack([loss, accuracy.to(loss)])])
            loss, accuracy = total
        return ServerOutput(loss, accuracy, std)


def across(smashed: Tensor) -> Tensor:
    """Return smashed data as small as the precision allows, whatever layer comes last."""
    device = smashed.device.type
    if not torch.is_autocast_enabled(device):
        return smashed
    return smashed.to(torch.get_autocast_dtype(device))


def _own_losses(smashed: SmashedStep) -> None:
    """Make the gradient of a mean over all rows that of each client's mean over its own."""
    query, groups, everyone = smashed.query, smashed.groups, smashed.everyone
    if not query.requires_grad or not groups:
        return
    num_rows = len(query) if everyone is None else sum(everyone.num_rows)
    factors = [query.new_full((g.num_rows, 1), num_rows / g.batch_size) for g in groups]
    scale = torch.cat(factors)  # (B, 1)
    query.register_hook(lambda gradient: gradient * scale)
