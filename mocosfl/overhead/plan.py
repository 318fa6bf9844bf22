"""What follows from a configuration: the figures printed before a run.

This is the one place that computes them; they are never written back into the configuration.
"""

import json
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch

from mocosfl.config.choices import LEARNING, Averaging, ClientState
from mocosfl.config.derived import (
    aligns_momentum,
    batch_sizes,
    is_frozen,
    is_supervised,
    keys_per_row,
    pool_size,
)
from mocosfl.config.schema import Config
from mocosfl.data.round_length import round_steps
from mocosfl.data.round_plan import sync_steps
from mocosfl.overhead.network import build_network, num_parameters, num_values
from mocosfl.overhead.traffic import WEIGHT_BYTES, rates
from mocosfl.privacy.build import build_attackers_decoder


@dataclass(frozen=True)
class Plan:
    """Figures of a run; bytes are of one client that takes part in a round.

    Where clients differ in their batch, rows and keys are what the mean pool brings, and the bytes
    are those of the poor.
    """

    pool_size: int  # P
    steps_per_round: int  # S
    num_steps: int  # of the whole run, as scheduled
    rows_per_step: int  # images on the server a step
    keys_per_step: int
    syncs_per_round: int
    num_syncs: int
    smashed_shape: tuple[int, int, int] | None  # None: the whole network is on the client
    head_parameters: int  # of the backbone on the client
    trunk_parameters: int  # of the backbone on the server
    projector_parameters: int  # with labels: of the classifier
    up_bytes: int
    down_bytes: int
    bank_bytes: int  # memory of the client bank once every client has taken part
    attacker_bytes: int  # memory of all simulated attackers, where heads learn to evade them
    saving_bytes: int  # disk for a round's smashed data, where saving.enabled; else 0
    images_per_client: tuple[int, float, int]  # least, mean, most


def make_plan(config: Config, counts: npt.NDArray[np.int64]) -> Plan:
    """Compute the plan of a run.

    Args:
        config: a valid configuration.
        counts: (N,) images of each client.
    """
    network = build_network(config)
    head, trunk, project = (num_parameters(part) for part in network[:3])
    if network.smashed_shape is None:
        head, trunk = head + trunk, 0
    clients, pool, sizes = config.clients, pool_size(config), batch_sizes(config)
    steps = round_steps(config, counts)
    syncs = int(sync_steps(steps, clients.syncs_per_round).sum())
    rows = round(pool * float(sizes.mean()))
    rate = rates(config, network, clients.batch_size)
    return Plan(
        pool_size=pool,
        steps_per_round=steps,
        num_steps=steps * clients.num_rounds,
        rows_per_step=rows,
        keys_per_step=0 if is_supervised(config) else rows * keys_per_row(config),
        syncs_per_round=syncs,
        num_syncs=syncs * clients.num_rounds,
        smashed_shape=network.smashed_shape,
        head_parameters=head,
        trunk_parameters=trunk,
        projector_parameters=project,
        up_bytes=steps * rate.step_up + syncs * rate.sync,
        down_bytes=steps * rate.step_down + syncs * rate.sync,
        bank_bytes=_bank_bytes(config, num_parameters(network.client)),
        attacker_bytes=_attacker_bytes(config),
        saving_bytes=_saving_bytes(config, steps * rows * rate.step_up / clients.batch_size),
        images_per_client=(int(counts.min()), float(counts.mean()), int(counts.max())),
    )


def steps_to_do(config: Config, plan: Plan) -> int:
    """Return the step that a run ends with: the last one, or `trainer.max_steps`."""
    max_steps = config.trainer.max_steps
    return plan.num_steps if max_steps == -1 else min(max_steps, plan.num_steps)


def plan_json(config: Config, plan: Plan) -> str:
    """Return the plan's figures as text for `plan.json`."""
    return json.dumps({**asdict(plan), "steps_to_do": steps_to_do(config, plan)}, indent=1) + "\n"


def _saving_bytes(config: Config, sent_in_a_round: float) -> int:
    """Return what `saving=by_loss` keeps of a round: all that the pool sends up."""
    return round(sent_in_a_round) if config.saving.enabled else 0


def _attacker_bytes(config: Config) -> int:
    if config.taressfl.mode not in LEARNING:
        return 0
    with torch.device("meta"):
        decoder = build_attackers_decoder(config)
    copies = 3  # the weights and Adam's two moments
    each = copies * num_parameters(decoder) + num_values(decoder) - num_parameters(decoder)
    return each * config.clients.num_clients * WEIGHT_BYTES[config.trainer.precision]


def _bank_bytes(config: Config, head: int) -> int:
    clients = config.clients
    everyone = pool_size(config) < clients.num_clients
    own = everyone and clients.client_state is ClientState.bank
    rows = clients.num_clients if own else 1
    trained = not is_frozen(config)
    copied = trained and not aligns_momentum(config) and not is_supervised(config)
    momentum = rows if copied else 1
    sgd = rows if trained and config.optimizer.momentum > 0 else 1
    # The online head is one for all, as a sync ends each round, unless clients keep a part.
    apart = trained and config.averaging.kind is Averaging.divergence_aware
    online = rows if apart else 1
    return (online + momentum + sgd) * head * WEIGHT_BYTES[config.trainer.precision]
