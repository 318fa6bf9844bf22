"""The bank: the state of every client while it is not in the pool.

N: clients in all. P: clients in the pool.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

State = Mapping[str, Tensor]  # of a client, or (P, ...) of several
ONLINE, MOMENTUM, SGD = "online", "momentum", "sgd"  # kinds of state


class ClientRows:
    """One tensor for each of N clients, stored once as long as all are equal.

    A sync makes all clients equal, so with one at the end of each round the bank holds a single
    online head, whatever N is.
    """

    def __init__(self, initial: Tensor, num_clients: int) -> None:
        self.num_clients = num_clients
        self.shared: Tensor | None = initial.detach().cpu().clone()
        self.rows: Tensor | None = None

    def gather(self, clients: Tensor) -> Tensor:
        """Return the rows of some clients, (len(clients), ...)."""
        if self.rows is not None:
            return self.rows[clients]
        assert self.shared is not None
        return self.shared.expand(len(clients), *self.shared.shape)

    def scatter(self, clients: Tensor, values: Tensor) -> None:
        """Write the rows of some clients, values (len(clients), ...)."""
        if self.rows is None:
            assert self.shared is not None
            # In the dtype of the values: a module may be turned to fp64 after it was built.
            shared = self.shared.to(values.dtype)
            self.rows = shared.expand(self.num_clients, *shared.shape).clone()
            self.shared = None
        self.rows[clients] = values.detach().to(self.rows)

    def broadcast(self, value: Tensor) -> None:
        """Give all clients the same tensor."""
        self.shared, self.rows = value.detach().cpu().clone(), None


class StateBank:
    """One kind of state of all N clients: their online heads, for example."""

    def __init__(self, initial: Mapping[str, Tensor], num_clients: int) -> None:
        """Give every client the same state.

        Args:
            initial: the state of a single client.
            num_clients: N.
        """
        self._rows = {name: ClientRows(tensor, num_clients) for name, tensor in initial.items()}

    def fetch(self, clients: Tensor, stacks: State) -> None:
        """Copy the states of some clients into stacks.

        Args:
            clients: (P,) ids, on the CPU.
            stacks: some names of the state, each (P, ...); changed in place.
        """
        for name, stack in stacks.items():
            stack.copy_(self._rows[name].gather(clients))

    def store(self, clients: Tensor, stacks: State) -> None:
        """Take the states of some clients home; arguments as `fetch`."""
        for name, stack in stacks.items():
            self._rows[name].scatter(clients, stack)

    def give_all(self, state: State) -> None:
        """Give all clients the same state; names that are left out keep theirs."""
        for name, tensor in state.items():
            self._rows[name].broadcast(tensor)

    def of(self, client: int) -> dict[str, Tensor]:
        """Return the state of one client."""
        ids = torch.tensor([client])
        return {name: rows.gather(ids)[0] for name, rows in self._rows.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into a checkpoint: name -> (the tensor of all, or None; the rows)."""
        return {name: (rows.shared, rows.rows) for name, rows in self._rows.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` has returned."""
        for name, rows in self._rows.items():
            # Copies: rows are written in place, and the owner of the state keeps its own.
            rows.shared, rows.rows = (
                None if tensor is None else tensor.cpu().clone() for tensor in state[name]
            )


class ClientBank:
    """Online heads, momentum heads and SGD buffers of all N clients, by kind.

    Of the clients in the pool, the stacks hold the truth; `changed` says of which kinds.
    """

    def __init__(self, head: State, num_clients: int) -> None:
        """Give every client the same head, and an empty SGD buffer.

        Args:
            head: parameters of a single head.
            num_clients: N.
        """
        empty = {name: torch.zeros_like(parameter) for name, parameter in head.items()}
        initial = {ONLINE: head, MOMENTUM: head, SGD: empty}
        self.kinds = {kind: StateBank(state, num_clients) for kind, state in initial.items()}
        self.changed = {ONLINE: False, MOMENTUM: False}

    def fetch(self, clients: Tensor, stacks: Mapping[str, State]) -> None:
        """Copy the states of some clients (P,) into stacks, kind -> name -> (P, ...)."""
        for kind, tensors in stacks.items():
            self.kinds[kind].fetch(clients, tensors)

    def store(self, clients: Tensor, kind: str, stacks: State) -> None:
        """Take one kind of state of some clients (P,) home."""
        self.kinds[kind].store(clients, stacks)

    def give_all(self, kind: str, state: State, *, changed: bool = False) -> None:
        """Give all clients the same state.

        Args:
            kind: of the state.
            state: of a single client.
            changed: the clients in the pool have another one, which the bank does not hold.
        """
        self.kinds[kind].give_all(state)
        self.changed[kind] = changed

    def of(self, client: int) -> dict[str, dict[str, Tensor]]:
        """Return the state of one client that is not in the pool, kind -> name -> tensor."""
        return {kind: bank.of(client) for kind, bank in self.kinds.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into a checkpoint."""
        return {
            "changed": list(self.changed.values()),
            "bank": {kind: bank.state_dict() for kind, bank in self.kinds.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` has returned."""
        self.changed = dict(zip(self.changed, state["changed"], strict=True))
        for kind, bank in self.kinds.items():
            bank.load_state_dict(state["bank"][kind])
