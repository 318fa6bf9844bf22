"""Adam for stacks of clients, each with its own moments and its own number of steps.

PyTorch's Adam counts the steps of a whole tensor; here a row is a client, and clients that are
outside the pool, or miss a step, do not move.

Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


class StackedAdam(nn.Module):
    """Moments of stacked parameters; a module, so that they are saved with the attackers.

    P: clients in the stacks.
    """

    num_steps: Tensor  # (P,) float32

    def __init__(self, stacks: Mapping[str, Tensor]) -> None:
        """Start all clients at zero.

        Args:
            stacks: name -> (P, ...) parameters.
        """
        super().__init__()
        first = next(iter(stacks.values()))
        self.register_buffer("num_steps", torch.zeros(len(first), device=first.device))
        self._names = {name: name.replace(".", "_") for name in stacks}
        for name, stack in stacks.items():
            for moment in ("mean", "square"):
                zeros = torch.zeros_like(stack, requires_grad=False)
                self.register_buffer(f"{moment}_{self._names[name]}", zeros)

    @torch.no_grad()
    def step(self, stacks: Mapping[str, Tensor], places: Tensor | None, lr: float) -> None:
        """Move the parameters against their gradients.

        Args:
            stacks: name -> (P, ...) parameters with gradients.
            places: (p,) clients that move; None for all.
            lr: learning rate.
        """
        rows: Tensor | slice = slice(None) if places is None else places
        self.num_steps[rows] += 1
        count = self.num_steps[rows]
        for name, stack in stacks.items():
            assert stack.grad is not None
            gradient = stack.grad[rows]
            mean, square = self.moments(name)
            mean[rows] = mean[rows].lerp(gradient, 1 - BETA1)
            square[rows] = BETA2 * square[rows] + (1 - BETA2) * gradient**2
            by_row = count.reshape(-1, *[1] * (stack.dim() - 1)).to(stack)
            scale = (square[rows] / (1 - BETA2**by_row)).sqrt() + EPS
            stack[rows] -= lr / (1 - BETA1**by_row) * mean[rows] / scale

    def moments(self, name: str) -> tuple[Tensor, Tensor]:
        """Return a parameter's means and mean squares, (P, ...) each."""
        flat = self._names[name]
        return getattr(self, f"mean_{flat}"), getattr(self, f"square_{flat}")
