"""Model inversion: from smashed data back to images, by an attacker who knows the head.

Two attackers. The first trains a decoder on the smashed data of the images that he knows, as the
published evaluation does. The second searches, for each victim, an image whose smashed data are the
victim's, with total variation as a prior; what he knows tells him where to start and how much the
prior should weigh. A defence that stops only the first may owe that to the decoder's weakness.

Source: Li et al., MocoSFL, ICLR 2023, appendix on TAResSFL (decoder); Mahendran and Vedaldi,
"Understanding deep image representations by inverting them", CVPR 2015 (relative error and prior).

Legend: B images, H pixels a side, (c, h, w) smashed data of an image.
"""

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl.privacy.decoders import MIN_BATCH_NORM_ROWS, build_decoder

log = logging.getLogger(__name__)

_NO_SIGNAL = 1e-12  # smashed data of zeros alone would make the relative error infinite


class PixelHead(nn.Module):
    """A frozen head behind the normalisation of its input: images in [0, 1] -> smashed data."""

    mean: Tensor
    std: Tensor

    def __init__(self, head: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take a copy of the head.

        Args:
            head: takes normalised images (B, 3, H, H).
            mean: of each channel, of images in [0, 1].
            std: of each channel, of images in [0, 1].
        """
        super().__init__()
        self.head = copy.deepcopy(head)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, H) in [0, 1] to smashed data (B, c, h, w)."""
        smashed: Tensor = self.head((images - self.mean) / self.std)
        return smashed


@dataclass(frozen=True)
class DecoderSettings:
    """How the decoder is trained; published values in brackets."""

    name: str  # see `decoders.py` [res_normN4C64]
    num_epochs: int  # passes over the known images, at least 1 [50]
    batch_size: int  # images a step [32]
    learning_rate: float  # of Adam [1e-3]
    validation_fraction: float  # of the known images, in (0, 1) [0.1]


@dataclass(frozen=True)
class OptimisationSettings:
    """How images are searched."""

    num_steps: int  # of Adam, at least 1
    learning_rates: tuple[float, ...]  # in units of the pixels' range; one is chosen
    prior_weights: tuple[float, ...]  # of total variation beside the relative error; one is chosen


class TrainedDecoder(NamedTuple):
    """What the first attacker has learned."""

    decoder: nn.Module  # smashed (B, c, h, w) -> images (B, 3, H, H) in [0, 1], in eval mode
    validation: Tensor  # rows of the known images kept for the choice of the epoch
    best_epoch: int  # counted from 1
    validation_mse: float  # of that epoch


class Search(NamedTuple):
    """A way to search, and its worth on known images."""

    start: str  # name of the start
    learning_rate: float  # at the first step; falls to 0 along a cosine
    prior_weight: float
    mse: float  # on those images; NaN where the search blew up


def relative_error(smashed: Tensor, target: Tensor) -> Tensor:
    """Return |smashed - target|^2 / |target|^2 of each image, (B, c, h, w) -> (B,)."""
    squared = (smashed - target).square().sum(dim=(1, 2, 3))
    return squared / target.square().sum(dim=(1, 2, 3)).clamp_min(_NO_SIGNAL)


class Inversion(NamedTuple):
    """What a search has found."""

    images: Tensor  # (B, 3, H, H) in [0, 1]
    relative_error: Tensor  # (B,) squared error of the smashed data over their squared norm


def smash(head: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Return the smashed data (B, c, h, w) of images (B, 3, H, H), without a gradient."""
    with torch.no_grad():
        return torch.cat([head(block) for block in images.split(batch_size)])


def train_decoder(
    smashed: Tensor, images: Tensor, settings: DecoderSettings, *, seed: int
) -> TrainedDecoder:
    """Train a decoder on pairs of smashed data and images; the best epoch by validation is kept.

    Args:
        smashed: (B, c, h, w), on the device where to train.
        images: (B, 3, H, H) in [0, 1], at least 2, on the same device.
        settings: the recipe.
        seed: of weights, split and order; the same seed gives the same bits (one device and
            number of CPU threads).

    Raises:
        ValueError: the decoder's name is unknown or does not fit the smashed data.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    num_validation = min(max(1, round(settings.validation_fraction * len(images))), len(images) - 1)
    validation, training = order[:num_validation], order[num_validation:]
    batch_size = min(settings.batch_size, len(training))
    decoder = _seeded_decoder(smashed, images, settings.name, batch_size, generator)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=settings.learning_rate)
    best_epoch, best_mse, best_weights = 0, float("inf"), copy.deepcopy(decoder.state_dict())
    for epoch in range(1, settings.num_epochs + 1):
        decoder.train()
        shuffled = training[torch.randperm(len(training), generator=generator)]
        for rows in _batches(shuffled, batch_size):
            optimizer.zero_grad()
            F.mse_loss(decoder(smashed[rows]), images[rows]).backward()
            optimizer.step()
        guesses = decode_all(decoder, smashed[validation], batch_size=batch_size)
        mse = float(F.mse_loss(guesses, images[validation]))
        if mse < best_mse:  # never with NaN: a decoder that blew up is not kept
            best_epoch, best_mse = epoch, mse
            best_weights = copy.deepcopy(decoder.state_dict())
    if best_epoch == 0:
        log.warning("the attacker's decoder never gave finite images: what it shows is untrained")
    decoder.load_state_dict(best_weights)
    decoder.requires_grad_(False).eval()
    return TrainedDecoder(decoder, validation, best_epoch, best_mse)


def decode_all(decoder: nn.Module, smashed: Tensor, *, batch_size: int) -> Tensor:
    """Return reconstructions (B, 3, H, H) of smashed data (B, c, h, w), in eval mode."""
    decoder.eval()
    with torch.no_grad():
        return torch.cat([decoder(block) for block in smashed.split(batch_size)])


def _seeded_decoder(
    smashed: Tensor, images: Tensor, name: str, batch_size: int, generator: torch.Generator
) -> nn.Module:
    _, channels, height, width = smashed.shape
    seed = int(torch.randint(2**31, (), generator=generator))
    # Layers draw their start values from PyTorch's global generator; it is put back behind us.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = build_decoder(
            name, (channels, height, width), image_size=images.shape[-1], batch_size=batch_size
        )
    return decoder.to(images)


def _batches(rows: Tensor, batch_size: int) -> list[Tensor]:
    """Cut rows into batches; a last one too small for the decoder's BatchNorm is left out.

    It is never the only one: `batch_size` is at most the number of rows.
    """
    least = MIN_BATCH_NORM_ROWS if batch_size >= MIN_BATCH_NORM_ROWS else 1
    return [batch for batch in rows.split(batch_size) if len(batch) >= least]


def try_searches(
    head: nn.Module,
    images: Tensor,
    starts: Mapping[str, Tensor],
    settings: OptimisationSettings,
    *,
    block_images: int,
) -> list[Search]:
    """Search known images in every way that the settings allow, the best way first.

    Args:
        head: see `invert`.
        images: (B, 3, H, H) in [0, 1]; a start that was fitted to them would look too good.
        starts: name -> (B, 3, H, H) in [0, 1].
        settings: the ways to try.
        block_images: see `invert`.
    """
    smashed = smash(head, images, batch_size=block_images)
    tried = []
    for name, start in starts.items():
        for rate, weight in product(settings.learning_rates, settings.prior_weights):
            way = Search(name, rate, weight, math.nan)
            found = invert(head, smashed, start, way, settings.num_steps, block_images=block_images)
            tried.append(way._replace(mse=float(F.mse_loss(found.images, images))))
    return sorted(tried, key=lambda way: math.inf if math.isnan(way.mse) else way.mse)


def invert(
    head: nn.Module,
    smashed: Tensor,
    start: Tensor,
    search: Search,
    num_steps: int,
    *,
    block_images: int,
) -> Inversion:
    """Search images whose smashed data are those given, by Adam on the pixels.

    The loss of an image is |head(x) - s|^2 / |s|^2 + weight * TV(x); pixels are put back into
    [0, 1] after each step. Images do not depend on each other. Nothing is drawn at random.

    Args:
        head: images (B, 3, H, H) in [0, 1] -> smashed data; nothing in it depends on the batch.
        smashed: (B, c, h, w).
        start: (B, 3, H, H) in [0, 1].
        search: learning rate and weight of the prior.
        num_steps: of Adam, at least 1.
        block_images: images searched at a time; bounds the memory.
    """
    found = [
        _invert_block(head, target, block, search, num_steps)
        for target, block in zip(
            smashed.split(block_images), start.split(block_images), strict=True
        )
    ]
    images, errors = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Inversion(images, errors)


def _invert_block(
    head: nn.Module, smashed: Tensor, start: Tensor, search: Search, num_steps: int
) -> tuple[Tensor, Tensor]:
    images = start.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([images], lr=search.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for _ in range(num_steps):
        error = relative_error(head(images), smashed)
        # The sum, so that an image's gradient is the same in any company.
        loss = (error + search.prior_weight * total_variation(images)).sum()
        (images.grad,) = torch.autograd.grad(loss, images)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    result = images.detach()
    with torch.no_grad():
        return result, relative_error(head(result), smashed)


def total_variation(images: Tensor) -> Tensor:
    """Return the mean absolute step between neighbouring pixels, (B, C, H, W) -> (B,)."""
    down = images.diff(dim=2).abs().mean(dim=(1, 2, 3))
    across = images.diff(dim=3).abs().mean(dim=(1, 2, 3))
    return down + across
