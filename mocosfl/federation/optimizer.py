"""SGD on both sides of the cut, and the course of its learning rates."""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch.optim import SGD, Optimizer

from mocosfl.federation.federation import Federation

# Names of the parameter groups.
SERVER, CLIENTS = "server", "clients"

MILESTONES = (0.6, 0.8)  # of the rounds, for the step schedule


class OptimizerSettings(NamedTuple):
    """SGD and its schedule; the fields are those of `optimizer=` in the configuration."""

    server_lr: float
    client_lr: float
    momentum: float
    weight_decay: float
    schedule: str
    client_schedule: str
    step_decay_server: float
    step_decay_client: float


def make_optimizer(
    federation: Federation,
    *,
    server_lr: float,
    client_lr: float,
    momentum: float,
    weight_decay: float,
) -> Optimizer:
    """Return one SGD with a parameter group for the server and one for all the heads.

    Frozen heads have no group, and neither has a server without weights. Learning rates are at
    least 0; 0.06 published for both.
    """
    sides = [
        (SERVER, federation.server, server_lr),
        (CLIENTS, federation.clients.online, client_lr),
    ]
    groups = []
    for name, module, lr in sides:
        parameters = [p for p in module.parameters() if p.requires_grad]
        if parameters:
            groups.append({"params": parameters, "lr": lr, "name": name})
    return SGD(groups, lr=server_lr, momentum=momentum, weight_decay=weight_decay, fused=True)


def rate_factor(
    settings: OptimizerSettings,
    side: str,
    *,
    num_rounds: int,
    steps_per_round: int,
    scale: float = 1.0,
) -> Callable[[int], float]:
    """Return the factor on a side's learning rate, as a function of the step.

    Args:
        settings: of the optimizer.
        side: `SERVER` or `CLIENTS`.
        num_rounds: rounds of the run, the period of the schedules.
        steps_per_round: S.
        scale: factor on top, constant.
    """
    if side == CLIENTS and settings.client_schedule == "published":
        factor = published_client_factor(num_rounds)
    else:
        decay = settings.step_decay_server if side == SERVER else settings.step_decay_client
        by_round = round_factor(settings.schedule, num_rounds=num_rounds, decay=decay)

        def factor(step: int) -> float:
            return by_round(step // steps_per_round)

    return factor if scale == 1 else lambda step: scale * factor(step)


def cosine(progress: float) -> float:
    """Fall from 1 to 0 along half a cosine; progress in [0, 1]."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def round_factor(kind: str, *, num_rounds: int, decay: float) -> Callable[[int], float]:
    """Return the factor as a function of the round.

    Args:
        kind: "constant", "cosine" (over all rounds) or "step" (at 60 % and 80 % of them).
        num_rounds: rounds of the run.
        decay: factor at each milestone of "step".
    """
    if kind == "constant":
        return lambda round_index: 1.0
    if kind == "cosine":
        return lambda round_index: cosine(round_index / num_rounds)
    assert kind == "step"  # the schema's choices
    milestones = [math.ceil(part * num_rounds) for part in MILESTONES]
    return lambda round_index: decay ** sum(round_index >= m for m in milestones)


def published_client_factor(num_rounds: int) -> Callable[[int], float]:
    """Return the published client schedule, as a function of the *step*.

    The published code steps it once a step with the period in rounds ("epochs" there), so that it
    swings between 1 and 0 all along the run. For reproduction only.
    """
    return lambda step: cosine(step / num_rounds)
