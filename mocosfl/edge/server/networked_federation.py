"""A federation some of whose clients are other machines.

The pool's stacks have a row for each client. A remote client's is a mirror: the online head that
the last sync gave it. Its own head, momentum head and SGD buffer are with the client; at a sync the
head comes up, takes its place in the mirror, and the mean is taken as in a simulation.

P: clients in the pool. b: images a client. B: rows of a step; twice as many where both views
travel.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.server.client_requests import Pair
from mocosfl.edge.server.remote_clients import RemoteClients
from mocosfl.federation.averaging import Spread
from mocosfl.federation.client_pool import ClientPool
from mocosfl.federation.federation import Federation, across
from mocosfl.federation.folding import stacked_state
from mocosfl.federation.server import Server, SmashedStep
from mocosfl.federation.step_input import ClientGroup, Step, doubled_groups, places_there


class _Rows(NamedTuple):
    """A remote client's rows in a step."""

    client: int
    place: int  # in the pool
    pair: Pair  # query and key


class NetworkedFederation(Federation):
    """A federation with remote clients, and simulated ones beside them.

    A step is: `gather`, then forward pass and backward as in any federation, `reply`, the
    optimizer's step, and `synchronise` where it is due.
    """

    def __init__(
        self,
        clients: ClientPool,
        server: Server,
        *,
        both_views: bool,
        align_momentum: bool,
        remote: npt.NDArray[np.bool_],
        remote_clients: RemoteClients,
    ) -> None:
        """Join both sides.

        Args:
            clients: the heads, and mirrors of the remote ones.
            server: trunk, queue and loss.
            both_views: see `Federation`.
            align_momentum: see `Federation`.
            remote: (N,) whether a client is another machine.
            remote_clients: their streams.
        """
        super().__init__(clients, server, both_views=both_views, align_momentum=align_momentum)
        self.remote, self.remote_clients = remote, remote_clients
        self.head_step = 0  # steps of the run behind the last sync
        self._step = 0  # of the run, in work
        self._simulated: tuple[ClientGroup, ...] = ()  # of that step
        self._rows: list[_Rows] = []  # in the order of the step's rows
        self._query: Tensor | None = None  # all remote rows, whose gradient goes back

    def announce(self) -> None:
        """Let the clients know of the head that all of them run, where it is frozen."""
        if self.clients.frozen:
            weights = _flat([p.detach() for p in self.clients.average_head().parameters()])
            for client in self.remote_clients.clients.values():
                client.settings.head_digest = wire.head_digest(weights.astype(np.float32))

    def gather(self, step: Step, *, number: int, client_lr: float) -> Step:
        """Ask the remote clients of a step for their smashed data.

        Args:
            step: as planned.
            number: of the step in the run, from 0.
            client_lr: learning rate of the heads in this step.

        Returns:
            The step of those that are there: simulated ones, and remote ones that answered in time.
        """
        self._step, self._query, self._rows = number, None, []
        self._simulated = self._here(step)
        # Without requests too: clients that have connected are let in.
        answers = self.remote_clients.ask_step(
            self._requests(step, client_lr),
            self.head_step,
            at_least=0 if self._simulated else 1,  # a step has rows
        )
        groups = []
        pool = step.pool.tolist()
        for group in step.groups:
            places = group.places.tolist()
            there = [p for p in places if not self.remote[pool[p]] or pool[p] in answers]
            self._rows += [_Rows(pool[p], p, answers[pool[p]]) for p in there if pool[p] in answers]
            if there:
                groups.append(group._replace(places=group.places.new_tensor(there)))
        return step._replace(groups=tuple(groups))

    def _requests(self, step: Step, client_lr: float) -> dict[int, pb.StepRequest]:
        requests, first_row, pool = {}, 0, step.pool.tolist()
        for group in step.groups:
            for place in group.places.tolist():
                if self.remote[pool[place]]:
                    requests[pool[place]] = pb.StepRequest(
                        step=self._step,
                        round=step.round,
                        number=step.number,
                        first_row=first_row,
                        num_rows=step.num_images,
                        learning_rate=client_lr,
                        sync_after=step.sync_due and not self.clients.frozen,
                    )
                first_row += group.batch_size
        return requests

    def _here(self, step: Step) -> tuple[ClientGroup, ...]:
        """Return the groups of a step's simulated clients."""
        groups = []
        for group in step.groups:
            here = ~torch.from_numpy(self.remote).to(step.pool.device)[step.pool[group.places]]
            if here.any():
                groups.append(group._replace(places=group.places[here]))
        return tuple(groups)

    def trained_places(self, step: Step) -> Tensor | None:
        """Return the places of the simulated clients of a gathered step, (p,); None for all."""
        # Without a row of the stacks in the step, no optimizer touches them.
        return places_there(self._simulated, step.pool) if self._simulated else None

    def smash(self, step: Step) -> SmashedStep:
        """Run the simulated clients' side of a gathered step, and join the remote rows to it."""
        groups = doubled_groups(step.groups) if self.both_views else step.groups
        here = super().smash(step._replace(groups=self._simulated)) if self._simulated else None
        query, key = self._remote_tensors(step)
        if here is not None:
            assert here.key is not None
            order = self._order(step, groups)
            query = torch.cat([here.query, query.to(here.query.dtype)])[order]
            key = torch.cat([here.key, key.to(here.key.dtype)])[order]
        return SmashedStep(query, key, None, step.pool, groups)

    def _remote_tensors(self, step: Step) -> tuple[Tensor, Tensor]:
        """Return queries and keys of all remote rows, the queries with gradient."""
        device, dtype = step.view1.device, self._dtype
        shape = next(iter(self.remote_clients.clients.values())).expectation.smashed_shape[1:]
        keys = [rows.pair.second for rows in self._rows if rows.pair.second is not None]
        query = _joined([rows.pair.first for rows in self._rows], shape).to(device, dtype)
        key = _joined(keys, shape).to(device, dtype)
        self._query = query.requires_grad_(not self.clients.frozen)
        return across(query), across(key)

    def _order(self, step: Step, groups: Sequence[ClientGroup]) -> Tensor:
        """Return where each row of a step is among [simulated rows; remote rows]."""
        clients = [(c, g.batch_size) for g in groups for c in step.pool[g.places].tolist()]
        next_here = 0
        next_remote = sum(size for client, size in clients if not self.remote[client])
        order: list[int] = []
        for client, size in clients:
            start = next_remote if self.remote[client] else next_here
            order += range(start, start + size)
            if self.remote[client]:
                next_remote += size
            else:
                next_here += size
        return torch.tensor(order, device=step.pool.device)

    def reply(self, *, sync_due: bool) -> None:
        """Send the remote clients their gradients, behind the backward pass.

        A gradient that is not finite is not sent: the clients then stay as they were.
        """
        if self.clients.frozen or not self._rows:
            return
        assert self._query is not None and self._query.grad is not None
        gradient = self._query.grad.detach().cpu().numpy()
        if np.isfinite(gradient).all():
            parts = np.split(gradient, np.cumsum([len(r.pair.first) for r in self._rows])[:-1])
            gradients = {rows.client: part for rows, part in zip(self._rows, parts, strict=True)}
            self.remote_clients.send_gradients(self._step, gradients, sync_after=sync_due)
        else:
            self._rows = []
        self._query = None

    def synchronise(self, places: Tensor | None = None) -> Spread | None:
        """Average the heads of those that are there, remote ones as they send them in time.

        Args:
            places: (p,) places in the pool of the clients in the step; None for all.
        """
        if self.clients.frozen:
            return None
        weights = self.remote_clients.collect_weights() if self._rows else {}
        pool = self.clients.pool
        there = range(len(pool)) if places is None else places.tolist()
        clients = pool.tolist()
        counted = [p for p in there if not self.remote[clients[p]] or clients[p] in weights]
        if not counted:
            return None  # all that were in the step have been lost behind it
        for place in counted:
            if clients[place] in weights:
                self._mirror(place, weights[clients[place]])
                self._count_images(clients[place])
        groups = (ClientGroup(pool.new_tensor(counted), 1),)
        spread = super().synchronise(places_there(groups, pool))
        self.head_step = self._step + 1
        self.remote_clients.give_heads({client: self.head_of(client) for client in weights})
        return spread

    def _count_images(self, client: int) -> None:
        """Let a client count by the images that it holds; the server's partition can't know."""
        counts, number = self.clients.averager.image_counts, self.remote_clients.num_images(client)
        if len(counts) and number is not None:
            counts[client] = number

    @torch.no_grad()
    def _mirror(self, place: int, weights: Pair) -> None:
        """Write a client's heads into its rows of the stacks."""
        self._fill(stacked_state(self.clients.online), place, weights.first)
        if weights.second is not None:
            self._fill(stacked_state(self.clients.momentum), place, weights.second)

    @staticmethod
    def _fill(stacks: Mapping[str, Tensor], place: int, flat: npt.NDArray[Any]) -> None:
        sizes = [stack[place].numel() for stack in stacks.values()]
        parts = torch.from_numpy(flat.copy()).split(sizes)
        for stack, part in zip(stacks.values(), parts, strict=True):
            stack[place] = part.view(stack.shape[1:]).to(stack)

    def head_of(self, client: int) -> pb.Head:
        """Return the head that a remote client is to have behind the last sync."""
        online, momentum = self.clients.heads_of(client)
        dtype = pb.FP64 if self._dtype == torch.float64 else pb.FP32
        head = pb.Head(step=self.head_step, online=wire.encode_tensor(_flat(online), dtype))
        if self.align_momentum:
            head.momentum.CopyFrom(wire.encode_tensor(_flat(momentum), dtype))
        return head

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.server.parameters()).dtype


def _joined(parts: Sequence[npt.NDArray[Any]], shape: Sequence[int]) -> Tensor:
    """Put clients' rows one after the other, (sum of b, c, h, w)."""
    return torch.from_numpy(np.concatenate(parts) if parts else np.zeros((0, *shape), np.float32))


def _flat(tensors: Sequence[Tensor]) -> npt.NDArray[Any]:
    """Return the parameters of a head as one vector."""
    values: npt.NDArray[Any] = torch.cat([t.detach().flatten() for t in tensors]).cpu().numpy()
    return values
