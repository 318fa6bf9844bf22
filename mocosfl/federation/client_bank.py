"""The bank: the state of every client while it is not in the pool.

N: clients in all. P: clients in the pool. A state is a dictionary name -> tensor.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


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

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        held = self.shared if self.rows is None else self.rows
        assert held is not None
        return held.nbytes


class ClientBank:
    """One kind of state of all N clients: their online heads, for example."""

    def __init__(self, initial: Mapping[str, Tensor], num_clients: int) -> None:
        """Give every client the same state.

        Args:
            initial: the state of a single client.
            num_clients: N.
        """
        self._rows = {name: ClientRows(tensor, num_clients) for name, tensor in initial.items()}

    def fetch(self, clients: Tensor, stacks: Mapping[str, Tensor]) -> None:
        """Copy the states of some clients into stacks.

        Args:
            clients: (P,) ids, on the CPU.
            stacks: some names of the state, each (P, ...); changed in place.
        """
        for name, stack in stacks.items():
            stack.copy_(self._rows[name].gather(clients))

    def store(self, clients: Tensor, stacks: Mapping[str, Tensor]) -> None:
        """Take the states of some clients home.

        Args:
            clients: (P,) ids, on the CPU.
            stacks: some names of the state, each (P, ...).
        """
        for name, stack in stacks.items():
            self._rows[name].scatter(clients, stack)

    def give_all(self, state: Mapping[str, Tensor]) -> None:
        """Give all clients the same state; names that are left out keep theirs."""
        for name, tensor in state.items():
            self._rows[name].broadcast(tensor)

    def of(self, client: Tensor) -> dict[str, Tensor]:
        """Return the state of one client, id (1,)."""
        return {name: rows.gather(client)[0] for name, rows in self._rows.items()}

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return sum(rows.num_bytes for rows in self._rows.values())

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
