"""What a run starts from: random weights, or an expert's.

An expert (`python -m mocosfl.expert`) gives its head to every client and its server to the server.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from mocosfl.config.derived import is_expert, is_supervised
from mocosfl.config.schema import Config
from mocosfl.federation.build import build_federation
from mocosfl.federation.federation import Federation
from mocosfl.federation.server import Server
from mocosfl.rules.problems import refuse
from mocosfl.runs.checkpoint import (
    Encoder,
    check_has_head,
    config_of,
    find_checkpoint,
    part_of,
    read_checkpoint,
    synchronised_head,
)
from mocosfl.runs.checkpoint_content import (
    ALARM,
    CALLBACKS,
    MAX_STEPS,
    SERVER,
    SERVER_PARTS,
    STATE,
    STEP,
    SUSPICIOUS_SINCE,
)

log = logging.getLogger(__name__)

# What an expert and the run that starts from it must have in common.
SHARED_KEYS = (
    "backbone.name",
    "backbone.width",
    "split.cut_layer",
    "split.bottleneck_channels",
    "split.bottleneck_stride",
    "split.bottleneck_kernel",
    "split.bottleneck_relu",
    "split.client_residual",
    "dataset.image_size",
    "dataset.mean",
    "dataset.std",
    "moco.projector_hidden",
    "moco.projector_dim",
    "moco.projector_batch_norm",
    "moco.projector_expands",
)


def load_expert(config: Config) -> dict[str, Any] | None:
    """Read and check the expert that a run starts from.

    Args:
        config: of the run, valid.

    Returns:
        The expert's checkpoint; None where the run starts from random weights.

    Raises:
        FileNotFoundError: taressfl.expert names no checkpoint.
        ValueError: it is none of ours, has no head, is another network's, or has collapsed.
    """
    path = config.taressfl.expert
    if path is None:
        return None
    file = find_checkpoint(Path(path), "last", key="taressfl.expert")
    checkpoint = read_checkpoint(file, key="taressfl.expert")
    theirs = config_of(checkpoint, f"taressfl.expert={path}")
    check_has_head(theirs, f"taressfl.expert={path}")
    if is_supervised(theirs):
        raise ValueError(
            f"taressfl.expert={path}: method={theirs.method.name} has trained a classifier, and no "
            "projector to go on with; name an expert, or a run of mocosfl or monacosfl"
        )
    refuse(_other_network(config, theirs, path))
    _check_trained(checkpoint, theirs, path)
    return checkpoint


def _other_network(config: Config, theirs: Config, path: str) -> Iterator[str]:
    """Yield a line for each setting of the network that the expert has otherwise."""
    for key in SHARED_KEYS:
        ours, other = OmegaConf.select(_node(config), key), OmegaConf.select(_node(theirs), key)
        if ours != other:
            yield (
                f"{key}={ours}: the expert taressfl.expert={path} has {other}; set {key}="
                f"{'null' if other is None else other}, or train an expert for {ours}"
            )


def _node(config: Config) -> Any:
    return OmegaConf.structured(config)


def _check_trained(checkpoint: dict[str, Any], theirs: Config, path: str) -> None:
    """Refuse an expert that tells nothing of its images, or a run of one that has not ended.

    A checkpoint file that is named itself is taken at any step, and that is logged, as is one that
    is no expert's.
    """
    alarm = checkpoint.get(CALLBACKS, {}).get(ALARM, {})
    collapsed = alarm.get(SUSPICIOUS_SINCE)
    if collapsed is not None:
        raise ValueError(
            f"taressfl.expert={path}: collapsed at step {collapsed} of its "
            "training, its outputs tell nothing of the images; train another, with a smaller "
            "taressfl.alpha or learning rate"
        )
    step, planned = checkpoint[STEP], checkpoint.get(MAX_STEPS, -1)
    if step < planned:
        if Path(path).is_dir():
            raise ValueError(
                f"taressfl.expert={path}: its training has not ended, its last good checkpoint is "
                f"of step {step:,} of {planned:,}; go on with it (resume={path}), or name the "
                ".ckpt file itself to take it as it is"
            )
        log.warning("taressfl.expert=%s: of step %d of %d", path, step, planned)
    if not is_expert(theirs):
        log.warning(
            "taressfl.expert=%s: is a run with taressfl=%s, trained without an attacker of its "
            "own; its head may be easy to invert (python -m mocosfl.attack tells)",
            path,
            theirs.taressfl.mode.name,
        )
    log.info("the expert: %s, %d training steps", path, step)


def start_from_expert(federation: Federation, checkpoint: dict[str, Any]) -> None:
    """Give every client the expert's head, and the server its trunk and projector.

    The momentum copies start from the expert's; the queue starts anew, of this run's shape.

    Args:
        federation: of the same network as the expert, before its first step.
        checkpoint: from `load_expert`.
    """
    state = checkpoint[STATE]
    federation.clients.start_from(synchronised_head(state))
    assert isinstance(federation.server, Server)  # a rule of `validate`
    for name in SERVER_PARTS:
        part: nn.Module = getattr(federation.server, name)
        part.load_state_dict(part_of(state, f"{SERVER}{name}."))


def fresh_encoder(config: Config) -> Encoder:
    """Return the encoder that a run with this configuration starts from; see `load_expert`."""
    federation = build_federation(config)
    expert = load_expert(config)
    if expert is not None:
        start_from_expert(federation, expert)
    network = federation.encoder().requires_grad_(False).eval()
    return Encoder(network, config, 0, "untrained")
