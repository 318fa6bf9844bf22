"""The momentum update against hand numbers."""

import pytest
import torch
from torch import nn

from mocosfl.federation.ema import update_ema


def linear(value: float) -> nn.Linear:
    """Return a layer whose weight and bias are all one value."""
    layer = nn.Linear(3, 2).double()
    for parameter in layer.parameters():
        nn.init.constant_(parameter, value)
    return layer


@pytest.mark.parametrize(("tau", "expected"), [(0.99, 2.01), (0.25, 2.75), (0.0, 3.0), (1.0, 2.0)])
def test_update_moves_by_one_minus_tau(tau: float, expected: float) -> None:
    momentum, online = linear(2.0), linear(3.0)
    update_ema(momentum, online, tau)

    for parameter in momentum.parameters():
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, expected))
    assert all((parameter == 3.0).all() for parameter in online.parameters())


@pytest.mark.parametrize("tau", [0.0, 0.4, 0.9, 0.99, 0.999, 1.0])
def test_update_of_equal_values_does_not_change_a_bit(tau: float) -> None:
    generator = torch.Generator().manual_seed(0)
    online, momentum = nn.Linear(300, 100), nn.Linear(300, 100)
    with torch.no_grad():
        online.weight.normal_(generator=generator)
    momentum.load_state_dict(online.state_dict())
    for _ in range(10):
        update_ema(momentum, online, tau)

    assert torch.equal(momentum.weight, online.weight)
    assert torch.equal(momentum.bias, online.bias)


def test_update_is_in_place_and_leaves_no_graph() -> None:
    momentum, online = linear(2.0), linear(3.0)
    before = momentum.weight
    update_ema(momentum, online, 0.5)

    assert momentum.weight is before
    assert momentum.weight.grad_fn is None
    assert before[0, 0].item() == 2.5


def test_module_without_parameters_has_nothing_to_update() -> None:
    update_ema(nn.ReLU(), nn.ReLU(), 0.99)
