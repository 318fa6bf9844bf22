"""Bytes between a client and the server, as on the wire and as the paper counts them.

On the wire, an image costs its smashed query and key on the way up and the query's gradient on the
way down; a sync costs the weights in both directions. The paper counts the smashed data twice an
image (once where the heads are frozen) and the weights once a sync, all in fp32.

Source: Li et al., MocoSFL, ICLR 2023, table 1 and section 5.3.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from mocosfl.config.derived import (
    aligns_momentum,
    is_central,
    is_frozen,
    is_supervised,
    num_views,
    pool_size,
    smashed_precision,
)
from mocosfl.config.schema import Config
from mocosfl.overhead.network import Network, num_parameters, num_values

WEIGHT_BYTES = {"fp32": 4, "bf16": 4, "fp64": 8}  # bf16 is autocast: weights stay fp32
ACTIVATION_BYTES = {"fp32": 4, "bf16": 2, "fp64": 8, "fp16": 2, "int8": 1}
LABEL_BYTES = 8  # an int64
PAPER_BYTES = 4  # the paper counts fp32


class Rates(NamedTuple):
    """Bytes of one client for each step and each sync in which it takes part."""

    step_up: int  # smashed data and labels
    step_down: int  # gradient of the smashed query
    sync: int  # weights, in each direction
    paper_step: int  # one crossing of the smashed data, in fp32
    paper_sync: int  # the online weights once, in fp32


class ClientTraffic(NamedTuple):
    """Expected bytes of one client over a whole run."""

    up: float
    down: float
    paper_weights: float
    paper_smashed: float


class Shares(NamedTuple):
    """Parts of a run's rounds with traffic of each sort, in [0, 1] (`saving=by_loss`)."""

    uploads: float  # smashed data go up: modes A and B
    replies: float  # gradients come down and weights are averaged: mode A


def rates(config: Config, network: Network, batch_size: int) -> Rates:
    """Compute a client's bytes a step and a sync.

    Args:
        config: a valid configuration.
        network: of the configuration.
        batch_size: b of the client, images.
    """
    if is_central(config):
        return Rates(0, 0, 0, 0, 0)
    precision, supervised = config.trainer.precision, is_supervised(config)
    values = 0 if network.smashed_shape is None else math.prod(network.smashed_shape)
    passed = batch_size * num_views(config) * values  # numbers in the smashed query
    latent = passed * ACTIVATION_BYTES[smashed_precision(config)]
    labels = batch_size * LABEL_BYTES if supervised and passed else 0
    frozen = is_frozen(config)
    weights = 0 if frozen else num_parameters(network.client)
    copies = 2 if aligns_momentum(config) else 1
    return Rates(
        step_up=latent + labels if supervised else 2 * latent,
        step_down=0 if frozen else latent,
        sync=weights * copies * WEIGHT_BYTES[precision],
        paper_step=passed * PAPER_BYTES,
        paper_sync=0 if frozen else num_values(network.client) * PAPER_BYTES,
    )


def present_fraction(config: Config) -> float:
    """Return the expected part of the pool that is there at a step.

    Each misses a step by itself, but a step that all would miss keeps one of them.
    """
    missing, pool = config.clients.dropout_probability, pool_size(config)
    return float(1 - missing + missing**pool / pool)


def traffic(
    config: Config, rates: Rates, *, steps: float, syncs: float, shares: Shares
) -> ClientTraffic:
    """Compute a client's expected bytes over a run.

    Args:
        config: a valid configuration.
        rates: of the client.
        steps: in which the client is in the pool; it misses some by clients.dropout_probability.
        syncs: at which the client is in the pool. One that misses such a step sends no weights;
            it takes the mean when it is back.
        shares: parts of the rounds with traffic.
    """
    there = present_fraction(config)
    present, weights = steps * there, syncs * shares.replies
    crossings = shares.uploads + (0 if is_frozen(config) else shares.replies)
    return ClientTraffic(
        up=present * shares.uploads * rates.step_up + weights * there * rates.sync,
        down=present * shares.replies * rates.step_down + weights * rates.sync,
        paper_weights=weights * there * rates.paper_sync,
        paper_smashed=present * crossings * rates.paper_step,
    )


def shares_of(rounds_by_mode: Mapping[str, int] | None) -> Shares:
    """Return the parts of a run's rounds with traffic.

    Args:
        rounds_by_mode: rounds spent in each mode: A all traffic, B uploads alone, C none; None:
            all in A.

    Raises:
        ValueError: a mode is unknown, a number negative, or there is no round.
    """
    rounds = {"A": 1} if rounds_by_mode is None else dict(rounds_by_mode)
    total = sum(rounds.values())
    if not set(rounds) <= {"A", "B", "C"} or min(rounds.values(), default=0) < 0 or total == 0:
        raise ValueError(
            f"rounds_by_mode={rounds}: give the rounds in A, B and C, at least one in all"
        )
    full = rounds.get("A", 0)
    return Shares((full + rounds.get("B", 0)) / total, full / total)
