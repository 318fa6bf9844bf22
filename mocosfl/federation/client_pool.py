"""All clients: the heads of the round's pool, stacked, and a bank with the state of the others.

Where several processes share a pool, each has the heads of some of its places, see `ranks`, and
the whole bank. What looks at the heads of all then runs in all processes: `synchronise`, `enter`,
`average_head`, `client_state`.

N: clients in all. P: clients in the pool. P_r: of these, this process's. b: images a client.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from mocosfl.federation.averaging import Averager, Heads, Spread, divergences, mean_head, spread
from mocosfl.federation.client_bank import ClientRows
from mocosfl.federation.ema import update_ema
from mocosfl.federation.folding import fold, fold_images, load_single, stacked_state, unfold_images
from mocosfl.federation.ranks import ALONE, Ranks
from mocosfl.federation.step import ClientGroup, rows_by_group, without_rows


class Smashed(NamedTuple):
    """What the clients send up, in the order of the step's rows."""

    query: Tensor  # (B, c, h, w), with gradient unless the heads are frozen
    key: Tensor | None  # (B, c, h, w), without gradient; None where there is no key view


class ClientPool(nn.Module):
    """The clients' side of the federation.

    The stacked parameters of `online` are ordinary parameters: SGD works element by element, so
    one optimizer over the stack is each client's own SGD with its own momentum buffer.
    """

    pool: Tensor  # (P,) ids of the clients whose state is in the stacks of all processes

    def __init__(
        self,
        head: nn.Module,
        *,
        num_clients: int,
        pool_size: int,
        momentum: float,
        stateless: bool,
        frozen: bool,
        averager: Averager | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Give every client a copy of one head.

        Args:
            head: what all clients start from; the momentum heads too.
            num_clients: N.
            pool_size: P, from 1 to N.
            momentum: tau of the momentum heads.
            stateless: a client that enters the pool starts from the synchronised head, the mean
                of the last pool's momentum heads, and an empty SGD buffer; memory is that of the
                pool whatever N is. False: each client keeps its own.
            frozen: the heads are not trained.
            averager: what a sync gives them; None for the plain mean.
            ranks: the process among those that share the pool.
        """
        super().__init__()
        self.averager = averager or Averager(
            "mean", num_clients=num_clients, strength=1.0, image_counts=None
        )
        self.head = head.requires_grad_(False)  # the shape of a single head, for `average_head`
        self.ranks, self.num_own = ranks, ranks.num_own(pool_size)  # P_r
        self.online = fold(head, self.num_own).requires_grad_(not frozen)
        self.momentum = fold(head, self.num_own).requires_grad_(False)
        self.register_buffer("pool", torch.arange(pool_size))
        self.tau, self.stateless, self.frozen = momentum, stateless, frozen
        self.num_clients, self.pool_size = num_clients, pool_size
        state = dict(head.named_parameters())
        self._online_bank = {n: ClientRows(p, num_clients) for n, p in state.items()}
        self._momentum_bank = {n: ClientRows(p, num_clients) for n, p in state.items()}
        self._sgd_bank = {n: ClientRows(torch.zeros_like(p), num_clients) for n, p in state.items()}
        # Whether the stacks hold anything that the bank does not.
        self._online_changed = self._momentum_changed = False

    def forward(
        self,
        query_view: Tensor,
        key_view: Tensor | None,
        groups: Sequence[ClientGroup],
        *,
        standing_still: bool = False,
    ) -> Smashed:
        """Run a step's views through the heads, moving the momentum heads in between.

        Args:
            query_view: (B, 3, H, W) for the online heads.
            key_view: (B, 3, H, W) for the momentum heads; None leaves them out.
            groups: whose rows these are; places in this process's stacks. None where none of its
                clients is there.
            standing_still: no gradient, and the momentum heads stay where they are.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not standing_still):
            query = self._run(self.online, query_view, groups)
        still = standing_still or not self.training
        if not still:
            self._online_changed |= not self.frozen
        if key_view is None:
            return Smashed(query, None)
        if not still:
            update_ema(self.momentum, self.online, self.tau)
            # The momentum copy of a frozen head stays equal to it.
            self._momentum_changed |= not self.frozen
        with torch.no_grad():
            key = self._run(self.momentum, key_view, groups)
        return Smashed(query, key)

    def _run(self, folded: nn.Module, rows: Tensor, groups: Sequence[ClientGroup]) -> Tensor:
        """Run each group's rows through its clients' heads, (B, 3, H, W) -> (B, c, h, w)."""
        smashed = []
        for group, images in zip(groups, rows_by_group(rows, groups), strict=True):
            num_clients, laid_out = len(group.places), fold_images(images)
            if num_clients == self.num_own:
                out = folded(laid_out)
            else:
                own = {n: p[group.places] for n, p in folded.named_parameters()}
                out = functional_call(folded, own, (laid_out,))
            smashed.append(unfold_images(out, num_clients))
        if not smashed:
            return without_rows(folded)
        return smashed[0] if len(smashed) == 1 else torch.cat(smashed)

    @contextmanager
    def sparing(self, places: Tensor | None, optimizer: Optimizer) -> Iterator[None]:
        """Keep the clients that miss a step as they were, whatever the step does to the stacks.

        Args:
            places: (p,) places in this process's stacks of those that are there; None for all.
            optimizer: holds the SGD buffers, which decay and weight decay would move.
        """
        if places is None:
            yield
            return
        absent = torch.ones(self.num_own, dtype=torch.bool, device=places.device)
        absent[places] = False
        missing = absent.nonzero()[:, 0]
        tensors = [p for module in (self.online, self.momentum) for p in module.parameters()]
        before = [p.detach()[missing] for p in tensors]
        buffers = [self._buffer(optimizer, p) for p in self.online.parameters()]
        kept = [None if buffer is None else buffer[missing] for buffer in buffers]
        yield
        with torch.no_grad():
            for tensor, rows in zip(tensors, before, strict=True):
                tensor[missing] = rows
            for parameter, held in zip(self.online.parameters(), kept, strict=True):
                buffer = self._buffer(optimizer, parameter)
                if buffer is not None:  # made in this step, it was zero before
                    buffer[missing] = 0.0 if held is None else held

    @torch.no_grad()
    def synchronise(self, align_momentum: bool, places: Tensor | None = None) -> Spread | None:
        """Give all N clients a mean of the pool's online heads.

        SGD buffers stay with their clients, and so do the momentum heads unless they are aligned.

        Args:
            align_momentum: average the momentum heads likewise (MonAcoSFL).
            places: (p,) places in the pool of the clients that are there and counted; None for
                all.

        Returns:
            How far the heads were from their mean; None where they are frozen, and so equal.

        Differs from the published code: it averages client 0 in place of the pool's first client,
        and its divergence-aware averaging has no effect.
        """
        if self.frozen:
            return None
        weights = self.averager.weights(self.pool, places)
        heads = stacked_state(self.online)
        means = self._mean_head(heads, weights)
        if places is None:
            places = torch.arange(self.pool_size, device=self.pool.device)
        divergence = self.ranks.of_pool(divergences(heads, means), self.pool_size)[places]
        if len(places) == 1:  # it is the mean; what was measured is rounding
            divergence = torch.zeros_like(divergence)
        shares = self.averager.own_shares(self.pool[places], divergence)
        if shares is not None:  # who is not there keeps nothing, as clients outside the pool
            shares = shares.new_zeros(self.pool_size).index_copy(0, places, shares)[self._own]
        for name, stacked in heads.items():
            self._give(stacked, means[name], self._online_bank[name], shares)
        self._online_changed = shares is not None
        if align_momentum:
            momentum = stacked_state(self.momentum)
            for name, mean in self._mean_head(momentum, weights).items():
                self._give(momentum[name], mean, self._momentum_bank[name], None)
            self._momentum_changed = False
        return spread(divergence)

    @property
    def _own(self) -> slice:
        return self.ranks.own(self.pool_size)

    def _mean_head(self, heads: Heads, weights: Tensor | None = None) -> dict[str, Tensor]:
        return mean_head(heads, weights, ranks=self.ranks, pool_size=self.pool_size)

    def _of_pool(self, own: Tensor) -> Tensor:
        return self.ranks.of_pool(own.detach(), self.pool_size)

    @staticmethod
    def _give(stacked: Tensor, mean: Tensor, bank: ClientRows, shares: Tensor | None) -> None:
        given = mean.expand_as(stacked)
        if shares is not None:
            own = shares.to(stacked).reshape(-1, *[1] * mean.dim())
            given = given + own * (stacked - given)
        stacked.copy_(given)
        bank.broadcast(mean)

    @torch.no_grad()
    def enter(self, pool: Tensor, optimizer: Optimizer) -> None:
        """Exchange the clients in the stacks: bring the old pool's state home, fetch the new one's.

        Args:
            pool: (P,) ids of the new pool, of all processes, in row order.
            optimizer: holds the SGD buffers of the stacked parameters.
        """
        pool = pool.to(self.pool)
        if torch.equal(pool, self.pool) and not self.stateless:
            return
        self._leave(optimizer)
        self.pool.copy_(pool)
        clients = pool[self._own].cpu()
        momentum = stacked_state(self.momentum)
        for name, parameter in self.online.named_parameters():
            parameter.copy_(self._online_bank[name].gather(clients))
            momentum[name].copy_(self._momentum_bank[name].gather(clients))
            buffer = self._buffer(optimizer, parameter)
            if buffer is not None:
                buffer.copy_(self._sgd_bank[name].gather(clients))

    def _leave(self, optimizer: Optimizer) -> None:
        clients = self.pool.cpu()
        online, momentum = stacked_state(self.online), stacked_state(self.momentum)
        if self.stateless:
            for stacks, bank in ((online, self._online_bank), (momentum, self._momentum_bank)):
                for name, mean in self._mean_head(stacks).items():
                    bank[name].broadcast(mean)
        else:
            for name, parameter in self.online.named_parameters():
                if self._online_changed:
                    self._online_bank[name].scatter(clients, self._of_pool(parameter))
                if self._momentum_changed:
                    self._momentum_bank[name].scatter(clients, self._of_pool(momentum[name]))
                buffer = self._buffer(optimizer, parameter)
                if buffer is not None:
                    self._sgd_bank[name].scatter(clients, self._of_pool(buffer))
        self._online_changed = self._momentum_changed = False

    @staticmethod
    def _buffer(optimizer: Optimizer, parameter: nn.Parameter) -> Tensor | None:
        # SGD makes it at the first step; an absent one counts as zeros.
        if parameter not in optimizer.state:
            return None
        buffer: Tensor | None = optimizer.state[parameter].get("momentum_buffer")
        return buffer

    @torch.no_grad()
    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """Give every client another head to start from, name -> tensor; its momentum copy too."""
        load_single(self.head, dict(state))
        for folded, bank in (
            (self.online, self._online_bank),
            (self.momentum, self._momentum_bank),
        ):
            for name, stacked in stacked_state(folded).items():
                stacked.copy_(state[name].expand_as(stacked))
                bank[name].broadcast(state[name])

    @torch.no_grad()
    def average_head(self) -> nn.Module:
        """Return the synchronised head: the mean over the pool, as an ordinary module."""
        load_single(self.head, self._mean_head(stacked_state(self.online)))
        return self.head

    def heads_of(self, client: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return one client's online and momentum head, parameter by parameter, as they are here.

        For one process alone.
        """
        ids, place = torch.tensor([client]), (self.pool.cpu() == client).nonzero().flatten()
        heads = []
        for folded, bank in (
            (self.online, self._online_bank),
            (self.momentum, self._momentum_bank),
        ):
            stacks = stacked_state(folded)
            if len(place):
                heads.append([stacked[int(place)] for stacked in stacks.values()])
            else:
                heads.append([bank[name].gather(ids)[0] for name in stacks])
        online, momentum = heads
        return online, momentum

    @property
    def _banks(self) -> dict[str, dict[str, ClientRows]]:
        return {
            "online": self._online_bank,
            "momentum": self._momentum_bank,
            "sgd": self._sgd_bank,
        }

    def client_state(self, client: int, optimizer: Optimizer) -> dict[str, dict[str, Tensor]]:
        """Return one client's `online`, `momentum` and `sgd` tensors by name, wherever they are."""
        ids = torch.tensor([client])
        state = {
            kind: {name: row.gather(ids)[0] for name, row in bank.items()}
            for kind, bank in self._banks.items()
        }
        for place in (self.pool.cpu() == client).nonzero().flatten().tolist():
            momentum = stacked_state(self.momentum)
            for name, parameter in self.online.named_parameters():
                state["online"][name] = self.ranks.at_place(parameter.detach(), place)
                state["momentum"][name] = self.ranks.at_place(momentum[name], place)
                buffer = self._buffer(optimizer, parameter)
                if buffer is not None:
                    state["sgd"][name] = self.ranks.at_place(buffer, place)
        return state

    @property
    def bank_bytes(self) -> int:
        """Memory of the bank."""
        return sum(row.num_bytes for bank in self._banks.values() for row in bank.values())

    def get_extra_state(self) -> dict[str, Any]:
        """Return the bank for the checkpoint (nn.Module's hook)."""
        return {
            "changed": [self._online_changed, self._momentum_changed],
            "bank": {
                kind: {name: (row.shared, row.rows) for name, row in bank.items()}
                for kind, bank in self._banks.items()
            },
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the bank from a checkpoint (nn.Module's hook)."""
        self._online_changed, self._momentum_changed = state["changed"]
        for kind, bank in self._banks.items():
            for name, row in bank.items():
                # Copies: rows are written in place, and whoever holds the state keeps his own.
                row.shared, row.rows = (
                    None if tensor is None else tensor.cpu().clone()
                    for tensor in state["bank"][kind][name]
                )
