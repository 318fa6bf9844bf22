"""What the server counts of each remote client, over all its connections."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from mocosfl.edge import federation_pb2 as pb


@dataclass
class Account:
    """One client's. Bytes of tensors are their numbers alone; what surrounds them is `*_other`."""

    steps: int = 0  # that it took part in
    syncs: int = 0  # that it sent weights to
    late_steps: int = 0  # that it was asked for, and answered too late or not at all
    connections: int = 0  # accepted
    lost: int = 0  # connections that ended before the run
    refusals: int = 0  # messages that were not accepted
    strikes: int = 0  # of these in the life of this server process
    smashed_up: int = 0  # bytes: queries and keys
    weights_up: int = 0  # bytes: heads for a sync
    other_up: int = 0  # bytes: all else in its messages
    gradients_down: int = 0  # bytes
    weights_down: int = 0  # bytes: means behind the syncs that it took part in
    heads_down: int = 0  # bytes: heads to start from, or for who missed a sync
    other_down: int = 0  # bytes: all else

    @property
    def up(self) -> int:
        """Bytes that it sent."""
        return self.smashed_up + self.weights_up + self.other_up

    @property
    def down(self) -> int:
        """Bytes that it was sent."""
        return self.gradients_down + self.weights_down + self.heads_down + self.other_down

    def count_up(self, kind: str | None, tensors: Iterable[pb.Tensor], num_bytes: int) -> None:
        """Count a message of the client.

        Args:
            kind: field of ClientMessage; None for what is no message.
            tensors: in it.
            num_bytes: of all of it.
        """
        self._count({"smashed": "smashed_up", "weights": "weights_up"}, kind, tensors, num_bytes)

    def count_down(self, kind: str, tensors: Iterable[pb.Tensor], num_bytes: int) -> None:
        """Count a message to the client; arguments as in `count_up`, fields of ServerMessage."""
        names = {"gradient": "gradients_down", "head": "weights_down"}
        names |= {"welcome": "heads_down", "step": "heads_down"}
        self._count(names, kind, tensors, num_bytes)

    def _count(
        self,
        names: Mapping[str, str],
        kind: str | None,
        tensors: Iterable[pb.Tensor],
        num_bytes: int,
    ) -> None:
        payload = sum(len(tensor.data) for tensor in tensors)
        name = names.get(kind or "")
        direction = "up" if "smashed" in names else "down"
        if name is None:
            payload = 0
        else:
            setattr(self, name, getattr(self, name) + payload)
        other = f"other_{direction}"
        setattr(self, other, getattr(self, other) + num_bytes - payload)


class Ledger:
    """The accounts of all remote clients."""

    def __init__(self, clients: Iterable[int]) -> None:
        """Open an account for each client."""
        self.accounts = {client: Account() for client in clients}

    def __getitem__(self, client: int) -> Account:
        """Return a client's account."""
        return self.accounts[client]

    @property
    def total(self) -> Account:
        """The sum of all accounts."""
        names = [field.name for field in fields(Account)]
        sums = {n: sum(getattr(a, n) for a in self.accounts.values()) for n in names}
        return Account(**sums)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for the checkpoint."""
        return {str(client): asdict(account) for client, account in self.accounts.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, int]]) -> None:
        """Go on from a checkpoint; what was sent behind it is not counted."""
        for client, values in state.items():
            self.accounts[int(client)] = Account(**{**values, "strikes": 0})
