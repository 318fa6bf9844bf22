"""The simulated attackers of TAResSFL, and the penalty that heads pay for what they see.

Each client has an attacker of its own: a decoder from its smashed query back to the image. At every
step the decoder takes a step of Adam towards a higher structural similarity (SSIM); then the head
pays alpha * max(SSIM - target, 0), with the decoder held fixed. All decoders run folded, as the
heads do. An expert's training is the case of one client.

Source: Li et al., MocoSFL, ICLR 2023, section 4.3.

Differs from the published code: there the regulariser in the federation takes the last client's
images for all and reaches one client's gradient; here each client's penalty is of its own images
and reaches its own head, unscaled.

N: clients in all. P: clients in the pool. b: images a client. B: rows of a step.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mocosfl.federation.client_bank import StateBank
from mocosfl.federation.folding import FOLDED_DECODER, fold, fold_images, unfold_images
from mocosfl.federation.step_input import ClientGroup, rows_by_group
from mocosfl.privacy.ssim import ssim
from mocosfl.privacy.stacked_adam import StackedAdam

# The published course of the decoders' learning rate: x0.2 at epochs 60, 120 and 160 of 200.
MILESTONES, DECAY = (0.3, 0.6, 0.8), 0.2


class Regulariser(NamedTuple):
    """Settings of the penalty and of the attackers."""

    alpha: float  # weight, at least 0; 2.0 published
    target_ssim: float  # similarity that is not punished, [0, 1]; 0.6 published
    decoder_lr: float  # of Adam, above 0; 1e-3 published


class Privacy(NamedTuple):
    """What the attackers found in a step."""

    penalty: Tensor  # scalar, the sum over the clients; its gradient is the heads' alone
    attacker_ssim: Tensor  # scalar, mean over the clients, of the fixed decoders

    def detached(self) -> "Privacy":
        """Return the same without a graph."""
        return Privacy(self.penalty.detach(), self.attacker_ssim)


def decoder_lr_factor(fraction: float) -> float:
    """Return the factor of the decoders' learning rate at a fraction of the run's rounds."""
    # A rounding error below a milestone would put it off by a round.
    return float(DECAY ** sum(fraction >= milestone - 1e-9 for milestone in MILESTONES))


class AttackerPool(nn.Module):
    """The attackers of the pool's clients, stacked, and a bank with those of the others."""

    pool: Tensor  # (P,) ids of the clients in the stacks
    mean: Tensor  # (3, 1, 1)
    std: Tensor  # (3, 1, 1)

    def __init__(
        self,
        decoder: nn.Module,
        settings: Regulariser,
        *,
        num_clients: int,
        pool_size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Give every client an attacker.

        Args:
            decoder: what all start from: smashed (B, c, h, w) -> images (B, 3, H, W) in [0, 1].
            settings: see `Regulariser`.
            num_clients: N.
            pool_size: P.
            mean: per channel, as the views are normalised with.
            std: per channel.
        """
        super().__init__()
        self.settings = settings
        self.decoders = fold(decoder.requires_grad_(True), pool_size, FOLDED_DECODER)
        self.adam = StackedAdam(dict(self.decoders.named_parameters()))
        self.register_buffer("pool", torch.arange(pool_size))
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        first = {name: stack[0] for name, stack in self._stacks().items()}
        self._bank = StateBank(first, num_clients)

    def images_of(self, views: Tensor) -> Tensor:
        """Undo the normalisation of views (B, 3, H, W), to values in [0, 1]."""
        return (views * self.std + self.mean).clamp(0.0, 1.0)

    def train_step(
        self,
        smashed: Tensor,
        images: Tensor,
        groups: Sequence[ClientGroup],
        *,
        lr_factor: float = 1.0,
    ) -> Tensor:
        """Take a step of each client's attacker towards a higher SSIM.

        Args:
            smashed: (B, c, h, w), without a graph.
            images: (B, 3, H, W) in [0, 1], what they were made from.
            groups: whose rows these are.
            lr_factor: of the decoders' learning rate, see `decoder_lr_factor`.

        Returns:
            (p,) SSIM of each client that is there, before the step.
        """
        self.decoders.train()
        parameters = dict(self.decoders.named_parameters())
        for parameter in parameters.values():
            parameter.grad = None
        similarity = self._similarity(smashed, images, groups, fixed=False)
        # A sum: each attacker's gradient is that of its own client's mean.
        similarity.sum().neg().backward()
        places = torch.cat([group.places for group in groups])
        lr = self.settings.decoder_lr * lr_factor
        self.adam.step(parameters, None if len(places) == len(self.pool) else places, lr)
        for parameter in parameters.values():
            parameter.grad = None
        return similarity.detach()

    def penalty(self, query: Tensor, images: Tensor, groups: Sequence[ClientGroup]) -> Privacy:
        """Punish each head for what its attacker sees, which learns nothing from it.

        Args:
            query: (B, c, h, w) smashed, with the heads' graph.
            images: (B, 3, H, W) in [0, 1], what it was made from.
            groups: whose rows these are.
        """
        self.decoders.eval()
        similarity = self._similarity(query, images, groups, fixed=True)  # (p,)
        excess = (similarity - self.settings.target_ssim).clamp(min=0.0)
        return Privacy(self.settings.alpha * excess.sum(), similarity.detach().mean())

    @torch.no_grad()
    def reconstruct(self, smashed: Tensor, groups: Sequence[ClientGroup]) -> Tensor:
        """Return what the attackers make of smashed data, (B, 3, H, W) in [0, 1]."""
        self.decoders.eval()
        parts = [
            self._decode(rows, group.places, fixed=True)
            for group, rows in zip(groups, rows_by_group(smashed, groups), strict=True)
        ]
        return torch.cat(parts)

    def _similarity(
        self, smashed: Tensor, images: Tensor, groups: Sequence[ClientGroup], *, fixed: bool
    ) -> Tensor:
        """Return the mean SSIM of each client that is there, (p,)."""
        similarities = []
        originals = rows_by_group(images, groups)
        for group, rows, wanted in zip(
            groups, rows_by_group(smashed, groups), originals, strict=True
        ):
            decoded = self._decode(rows, group.places, fixed=fixed)
            values = ssim(decoded, wanted.flatten(0, 1))
            similarities.append(values.unflatten(0, (-1, group.batch_size)).mean(1))
        return torch.cat(similarities)

    def _decode(self, rows: Tensor, places: Tensor, *, fixed: bool) -> Tensor:
        """Run the decoders of some clients, (p, b, c, h, w) -> (p * b, 3, H, W)."""
        everyone = len(places) == len(self.pool)
        state: dict[str, Tensor] = dict(self.decoders.named_parameters())
        if fixed:  # no gradient reaches the decoders
            state = {name: tensor.detach() for name, tensor in state.items()}
        buffers = dict(self.decoders.named_buffers())
        own = {**state, **buffers}
        if not everyone:
            own = {name: tensor[places] for name, tensor in own.items()}
        decoded = functional_call(self.decoders, own, (fold_images(rows),))
        if not everyone and self.decoders.training:  # running statistics moved in the copies
            for name, stack in buffers.items():
                stack[places] = own[name]
        return unfold_images(decoded, len(places))

    @torch.no_grad()
    def enter(self, pool: Tensor) -> None:
        """Exchange the attackers in the stacks for those of a new pool (P,)."""
        pool = pool.to(self.pool)
        if torch.equal(pool, self.pool):
            return
        stacks = self._stacks()
        self._bank.store(self.pool.cpu(), stacks)
        self._bank.fetch(pool.cpu(), stacks)
        self.pool.copy_(pool)

    def _stacks(self) -> dict[str, Tensor]:
        """Return everything that a client's attacker consists of, name -> (P, ...)."""
        tensors = {**dict(self.decoders.named_parameters()), **dict(self.decoders.named_buffers())}
        moments = {f"adam.{name}": tensor for name, tensor in self.adam.named_buffers()}
        return {name: tensor.detach() for name, tensor in {**tensors, **moments}.items()}

    def get_extra_state(self) -> dict[str, Any]:
        """Return the bank for the checkpoint (nn.Module's hook)."""
        return self._bank.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the bank from a checkpoint (nn.Module's hook)."""
        self._bank.load_state_dict(state)
