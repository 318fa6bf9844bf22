"""From the configuration to the simulated attackers."""

import torch
from torch import nn

from mocosfl.config.choices import LEARNING
from mocosfl.config.derived import batch_sizes, pool_size
from mocosfl.config.schema import Config
from mocosfl.models.build import build_split
from mocosfl.privacy.attackers import AttackerPool, Regulariser
from mocosfl.privacy.decoders import build_decoder
from mocosfl.system.randomness import torch_generator


def build_attackers_decoder(config: Config) -> nn.Module:
    """Build what each simulated attacker starts from, with the random state that is there."""
    return build_decoder(
        config.taressfl.decoder,
        build_split(config).smashed_shape,
        image_size=config.dataset.image_size,
        batch_size=int(batch_sizes(config).min()),
    )


def build_attackers(config: Config, num_collapses: int = 0) -> AttackerPool | None:
    """Build the simulated attackers that heads learn to evade; None where there are none.

    Args:
        config: a valid configuration.
        num_collapses: after each, alpha is smaller by taressfl.collapse_alpha_factor.
    """
    taressfl = config.taressfl
    if taressfl.mode not in LEARNING:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_generator(config.seed, "attackers").initial_seed())
        decoder = build_attackers_decoder(config)
    alpha = taressfl.alpha * taressfl.collapse_alpha_factor**num_collapses
    return AttackerPool(
        decoder,
        Regulariser(alpha, taressfl.target_ssim, taressfl.decoder_lr),
        num_clients=config.clients.num_clients,
        pool_size=pool_size(config),
        mean=list(config.dataset.mean),
        std=list(config.dataset.std),
    )
