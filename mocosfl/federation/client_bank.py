"""A tensor of every client, kept small while all are equal.

N: clients in all.
"""

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
