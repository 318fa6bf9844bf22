"""Projectors: their layers."""

import pytest
import torch

from mocosfl.models.projector import Projector


def test_projector_linear_is_one_layer() -> None:
    projector = Projector(64, hidden_dim=None, embedding_dim=128)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))

    assert len(projector.linears) == 1
    torch.testing.assert_close(projector(x), x @ projector.linears[0].weight.T)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_projector_mlp_is_linear_norm_relu_linear(batch_norm: bool) -> None:
    projector = Projector(64, hidden_dim=32, embedding_dim=16, batch_norm=batch_norm)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    first, second = projector.linears
    hidden = x @ first.weight.T
    if batch_norm:
        hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()

    torch.testing.assert_close(projector(x), hidden.relu() @ second.weight.T)
    assert (projector.norm is not None) is batch_norm
