"""Both attacks on one head from start to end; what they found as numbers."""

import math
import time
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from torch import Tensor, nn

from mocosfl.config.attack import AttackConfig
from mocosfl.privacy.attack.comparison import Comparison, FiniteSpread, compare_images, spreads
from mocosfl.privacy.attack.images import AttackImages
from mocosfl.privacy.attack.inversion import (
    DecoderSettings,
    Inversion,
    OptimisationSettings,
    PixelHead,
    Search,
    TrainedDecoder,
    decode_all,
    invert,
    smash,
    train_decoder,
    try_searches,
)
from mocosfl.runs.checkpoint import Encoder, fingerprint
from mocosfl.system.device import chosen_device

DECODER, OPTIMISATION, MEAN = "decoder", "optimisation", "mean image"

BLOCK_IMAGES = 64  # a forward pass through the head: bounds the memory

TUNING_IMAGES = 16  # known ones that each way to search is tried on: a mean of so many ranks them


class AttackResult(NamedTuple):
    """What the attackers found of the victims.

    Attributes:
        reconstructions: name of the attack -> (V, 3, H, H) in [0, 1], on the CPU. The mean of the
            known images is there too: what is found without looking at the smashed data.
        decoder: the trained one.
        searches: the ways tried on known images, the best first; that one was used.
        relative_error: (V,) of the smashed data of what the search found.
        smashed_shape: (c, h, w) of an image.
        seconds: of each attack.
    """

    reconstructions: dict[str, Tensor]
    decoder: TrainedDecoder
    searches: list[Search]
    relative_error: Tensor
    smashed_shape: tuple[int, ...]
    seconds: dict[str, float]


def attack_head(encoder: Encoder, images: AttackImages, settings: AttackConfig) -> AttackResult:
    """Let both attackers reconstruct the victims from what the head sends up.

    Args:
        encoder: whose head is attacked.
        images: victims and known ones.
        settings: of the attack.
    """
    dataset = encoder.config.dataset
    device = chosen_device(settings.accelerator)
    assert isinstance(encoder.network, nn.Sequential)  # head and trunk
    head = PixelHead(encoder.network[0], mean=list(dataset.mean), std=list(dataset.std)).to(device)
    known, victims = images.known_images.to(device), images.victim_images.to(device)
    start = time.monotonic()
    smashed = smash(head, victims, batch_size=BLOCK_IMAGES)
    trained = train_decoder(
        smash(head, known, batch_size=BLOCK_IMAGES),
        known,
        _decoder_settings(settings),
        seed=settings.seed,
    )
    decoded = decode_all(trained.decoder, smashed, batch_size=BLOCK_IMAGES)
    decoder_seconds, start = time.monotonic() - start, time.monotonic()
    searches, found = _search(head, smashed, known, trained, decoded, settings)
    mean = known.mean(dim=0, keepdim=True).expand_as(victims)
    return AttackResult(
        {DECODER: decoded.cpu(), OPTIMISATION: found.images.cpu(), MEAN: mean.cpu()},
        trained,
        searches,
        found.relative_error.cpu(),
        tuple(smashed.shape[1:]),
        {DECODER: decoder_seconds, OPTIMISATION: time.monotonic() - start},
    )


def _search(
    head: nn.Module,
    smashed: Tensor,
    known: Tensor,
    trained: TrainedDecoder,
    decoded: Tensor,
    settings: AttackConfig,
) -> tuple[list[Search], Inversion]:
    """Choose how to search on known images that the decoder was not fitted to, then search."""
    a = settings.attack
    recipe = OptimisationSettings(
        a.optimisation_steps,
        tuple(a.optimisation_learning_rates),
        tuple(a.optimisation_prior_weights),
    )
    tuning = known[trained.validation[:TUNING_IMAGES].to(known.device)]
    mean = known.mean(dim=0, keepdim=True)
    guesses = decode_all(
        trained.decoder, smash(head, tuning, batch_size=BLOCK_IMAGES), batch_size=BLOCK_IMAGES
    )
    starts = {MEAN: mean.expand_as(tuning), DECODER: guesses}
    searches = try_searches(head, tuning, starts, recipe, block_images=BLOCK_IMAGES)
    start = decoded if searches[0].start == DECODER else mean.expand_as(decoded)
    found = invert(
        head, smashed, start, searches[0], a.optimisation_steps, block_images=BLOCK_IMAGES
    )
    return searches, found


def _decoder_settings(settings: AttackConfig) -> DecoderSettings:
    a = settings.attack
    return DecoderSettings(
        a.decoder, a.num_epochs, a.batch_size, a.learning_rate, a.validation_fraction
    )


def comparisons(result: AttackResult, images: AttackImages) -> dict[str, Comparison]:
    """Return what each attack's reconstructions are worth."""
    return {
        name: compare_images(found, images.victim_images)
        for name, found in result.reconstructions.items()
    }


def as_table(found: dict[str, Comparison]) -> str:
    """Return means and standard deviations over the victims as text."""
    lines = [f"{'attack':<14}{'MSE':>18}{'SSIM':>16}{'SSIM (torchm.)':>18}{'PSNR dB':>16}"]
    for name, comparison in found.items():
        s = spreads(comparison)
        lines.append(
            f"{name:<14}{_cell(s['mse'], 5):>18}{_cell(s['ssim'], 3):>16}"
            f"{_cell(s['ssim_torchmetrics'], 3):>18}{_cell(s['psnr'], 2):>16}"
        )
        if s["psnr"].num_infinite:
            lines.append(f"{'':<14}({s['psnr'].num_infinite} returned exactly, not in the PSNR)")
    lines.append("(mean +- standard deviation over the victims; `mean image` ignores what is sent)")
    return "\n".join(lines)


def _cell(spread: FiniteSpread, digits: int) -> str:
    return f"{spread.mean:.{digits}f} +- {spread.std:.{digits}f}"


def attack_record(
    result: AttackResult,
    found: dict[str, Comparison],
    *,
    encoder: Encoder,
    images: AttackImages,
    settings: AttackConfig,
) -> dict[str, Any]:
    """Return everything as plain values; infinite and undefined numbers as None."""
    a = settings.attack
    return {
        "checkpoint": encoder.source,
        "encoder_step": encoder.step,
        "encoder_sha256": fingerprint(encoder.network),
        "dataset": encoder.config.dataset.name,
        "smashed_shape": list(result.smashed_shape),
        "settings": OmegaConf.to_container(OmegaConf.structured(settings), enum_to_str=True),
        "client": images.client,
        "num_images_asked": a.num_images,
        "num_images": len(images.victims),
        "num_known": len(images.known),
        "victims": images.victims.tolist(),
        "seconds": result.seconds,
        "decoder_best_epoch": result.decoder.best_epoch,
        "decoder_validation_mse": _finite(result.decoder.validation_mse),
        "searches": [
            {key: _finite(value) for key, value in way._asdict().items()} for way in result.searches
        ],
        "relative_error": [_finite(value) for value in result.relative_error.tolist()],
        "attacks": {name: _one_attack(comparison) for name, comparison in found.items()},
    }


def _one_attack(comparison: Comparison) -> dict[str, Any]:
    values: dict[str, Any] = {
        name: {key: _finite(value) for key, value in spread._asdict().items()}
        for name, spread in spreads(comparison).items()
    }
    values["per_image"] = {
        name: [_finite(value) for value in column.tolist()]
        for name, column in comparison._asdict().items()
    }
    return values


def _finite(value: Any) -> Any:
    """Return a value, or None for a number that JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
