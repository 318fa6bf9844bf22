"""The pool: the heads of this round's clients, stacked.

Where several processes share a pool, each has the heads of some of its places, see `ranks`, and
the whole bank. What looks at the heads of all then runs in all processes: `synchronise`, `enter`,
`average_head`, `client_state`.

N: clients in all. P: clients in the pool. P_r: of these, this process's. b: images a client. B:
rows of a step.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from mocosfl.federation.averaging import Averager, Heads, Spread, divergences, mean_head, spread
from mocosfl.federation.client_bank import MOMENTUM, ONLINE, SGD, ClientBank
from mocosfl.federation.ema import update_ema
from mocosfl.federation.folding import fold, fold_images, load_single, stacked_state, unfold_images
from mocosfl.federation.ranks import ALONE, Ranks
from mocosfl.federation.step_input import ClientGroup, rows_by_group, without_rows

Stacks = dict[str, dict[str, Tensor]]  # online, momentum or sgd -> name -> (P_r, ...)


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
        self.bank = ClientBank(dict(head.named_parameters()), num_clients)

    def query(self, view: Tensor, groups: Sequence[ClientGroup]) -> Tensor:
        """Run the online heads.

        Args:
            view: (B, 3, H, W).
            groups: whose rows these are; places in this process's stacks. () where none of its
                clients takes part.

        Returns:
            (B, c, h, w) in the order of the rows, with the graph unless the heads are frozen.
        """
        return self._run(self.online, view, groups)

    def note_training(self) -> None:
        """Note that the step in work trains the online heads: the bank has other ones then."""
        self.bank.changed[ONLINE] |= not self.frozen

    def update_momentum(self) -> None:
        """Move each momentum head towards its online head."""
        update_ema(self.momentum, self.online, self.tau)
        # The momentum copy of a frozen head stays equal to it.
        self.bank.changed[MOMENTUM] |= not self.frozen

    @torch.no_grad()
    def key(self, view: Tensor, groups: Sequence[ClientGroup]) -> Tensor:
        """Run the momentum heads; arguments as `query`. Returns (B, c, h, w) without a graph."""
        return self._run(self.momentum, view, groups)

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
            places: (p,) places in this process's stacks of those that take part; None for all.
            optimizer: holds the SGD buffers, which decay and weight decay would move.
        """
        if places is None:
            yield
            return
        absent = torch.ones(self.num_own, dtype=torch.bool, device=places.device)
        absent[places] = False
        missing = absent.nonzero()[:, 0]
        before = {
            kind: {name: stack[missing] for name, stack in stacks.items()}
            for kind, stacks in self._stacks(optimizer).items()
        }
        yield
        for kind, stacks in self._stacks(optimizer).items():
            for name, stack in stacks.items():
                held = before[kind].get(name)
                # An SGD buffer that was made in this step was zero before.
                stack[missing] = 0.0 if held is None else held

    @torch.no_grad()
    def synchronise(self, align_momentum: bool, places: Tensor | None = None) -> Spread | None:
        """Give all N clients a mean of the pool's online heads.

        SGD buffers stay with their clients, and so do the momentum heads unless they are aligned.

        Args:
            align_momentum: average the momentum heads likewise (MonAcoSFL).
            places: (p,) places in the pool of the clients that take part and count; None for all.

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
        divergence = self._of_pool(divergences(heads, means))[places]
        if len(places) == 1:  # it is the mean; what was measured is rounding
            divergence = torch.zeros_like(divergence)
        shares = self.averager.own_shares(self.pool[places], divergence)
        if shares is not None:  # clients that miss the sync keep nothing, as those out of the pool
            shares = shares.new_zeros(self.pool_size).index_copy(0, places, shares)[self._own]
        self._give(ONLINE, heads, means, shares)
        if align_momentum:
            momentum = stacked_state(self.momentum)
            self._give(MOMENTUM, momentum, self._mean_head(momentum, weights), None)
        return spread(divergence)

    def _give(self, kind: str, stacks: Heads, means: Heads, shares: Tensor | None) -> None:
        """Give all clients the mean; those in the pool keep a share (P_r,) of their own heads."""
        for name, stack in stacks.items():
            given = means[name].expand_as(stack)
            if shares is not None:
                own = shares.to(stack).reshape(-1, *[1] * means[name].dim())
                given = given + own * (stack - given)
            stack.copy_(given)
        self.bank.give_all(kind, means, changed=shares is not None)

    @property
    def _own(self) -> slice:
        return self.ranks.own(self.pool_size)

    def _mean_head(self, heads: Heads, weights: Tensor | None = None) -> dict[str, Tensor]:
        return mean_head(heads, weights, ranks=self.ranks, pool_size=self.pool_size)

    def _of_pool(self, own: Tensor) -> Tensor:
        return self.ranks.of_pool(own.detach(), self.pool_size)

    def _stacks(self, optimizer: Optimizer) -> Stacks:
        """Return all that the clients in the pool have; of the SGD buffers those that are made."""
        buffers = {
            name: optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.online.named_parameters()
            # SGD makes it at the first step; an absent one counts as zeros.
            if optimizer.state.get(parameter, {}).get("momentum_buffer") is not None
        }
        return {
            ONLINE: stacked_state(self.online),
            MOMENTUM: stacked_state(self.momentum),
            SGD: buffers,
        }

    @torch.no_grad()
    def enter(self, pool: Tensor, optimizer: Optimizer) -> None:
        """Exchange the clients in the stacks: store the old pool's state, fetch the new one's.

        Args:
            pool: (P,) ids of the new pool, of all processes, in row order.
            optimizer: holds the SGD buffers of the stacked parameters.
        """
        pool = pool.to(self.pool)
        if torch.equal(pool, self.pool) and not self.stateless:
            return
        stacks = self._stacks(optimizer)
        self._leave(stacks)
        self.pool.copy_(pool)
        self.bank.fetch(pool[self._own].cpu(), stacks)

    def _leave(self, stacks: Stacks) -> None:
        if self.stateless:
            for kind in (ONLINE, MOMENTUM):
                self.bank.give_all(kind, self._mean_head(stacks[kind]))
            return
        for kind, tensors in stacks.items():
            if self.bank.changed.get(kind, True):
                of_pool = {name: self._of_pool(own) for name, own in tensors.items()}
                self.bank.store(self.pool.cpu(), kind, of_pool)
        self.bank.changed = dict.fromkeys(self.bank.changed, False)

    @torch.no_grad()
    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """Give every client another head to start from, name -> tensor; its momentum copy too."""
        load_single(self.head, dict(state))
        for kind, folded in ((ONLINE, self.online), (MOMENTUM, self.momentum)):
            for name, stack in stacked_state(folded).items():
                stack.copy_(state[name].expand_as(stack))
            self.bank.give_all(kind, state, changed=self.bank.changed[kind])

    @torch.no_grad()
    def average_head(self) -> nn.Module:
        """Return the synchronised head: the mean over the pool, as an ordinary module."""
        load_single(self.head, self._mean_head(stacked_state(self.online)))
        return self.head

    def heads_of(self, client: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return one client's online and momentum head, parameter by parameter, as they are here.

        For one process alone.
        """
        place = (self.pool == client).nonzero().flatten()
        if not len(place):
            state = self.bank.of(client)
            return list(state[ONLINE].values()), list(state[MOMENTUM].values())
        online, momentum = (
            [stack[int(place)] for stack in stacked_state(folded).values()]
            for folded in (self.online, self.momentum)
        )
        return online, momentum

    def client_state(self, client: int, optimizer: Optimizer) -> dict[str, dict[str, Tensor]]:
        """Return one client's `online`, `momentum` and `sgd` tensors by name, wherever they are."""
        state = self.bank.of(client)
        for place in (self.pool.cpu() == client).nonzero().flatten().tolist():
            for kind, stacks in self._stacks(optimizer).items():
                state[kind] |= {n: self.ranks.at_place(own, place) for n, own in stacks.items()}
        return state

    def get_extra_state(self) -> dict[str, Any]:
        """Return the bank for the checkpoint (nn.Module's hook)."""
        return self.bank.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the bank from a checkpoint (nn.Module's hook)."""
        self.bank.load_state_dict(state)
