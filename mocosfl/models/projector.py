"""The projector: from the trunk's features to the embedding that the loss compares."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl.models.layers import initialise


class Projector(nn.Module):
    """A linear layer, or an MLP of two with a ReLU (and optionally BatchNorm) between.

    The published ones: v1 linear 128; small_v2 512-512; v2 1024-1024; large_v2 4096-2048 with
    BatchNorm (hidden-embedding sizes).
    """

    def __init__(
        self, in_dim: int, *, hidden_dim: int | None, embedding_dim: int, batch_norm: bool = False
    ) -> None:
        """Build the projector.

        Args:
            in_dim: size of the features.
            hidden_dim: of the MLP; None for a single linear layer.
            embedding_dim: D, size of a key.
            batch_norm: BatchNorm1d behind the hidden layer; needs a hidden layer.
        """
        super().__init__()
        hidden = [] if hidden_dim is None else [hidden_dim]
        sizes = [in_dim, *hidden, embedding_dim]
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norm = nn.BatchNorm1d(hidden_dim) if batch_norm and hidden_dim else None
        initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, in_dim) to embeddings (B, D), not yet normalised."""
        x: Tensor = self.linears[0](features)
        if len(self.linears) == 1:
            return x
        x = F.relu(x if self.norm is None else self.norm(x))
        out: Tensor = self.linears[1](x)
        return out
