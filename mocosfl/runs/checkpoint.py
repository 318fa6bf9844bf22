"""Reading what a run has left: its configuration and its encoder."""

import hashlib
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mocosfl.config.derived import is_whole_network
from mocosfl.config.identity import (
    FREE_KEYS,
    FREE_ON_RESUME,
    compared_values,
    differences,
    recorded_config,
)
from mocosfl.config.schema import Config
from mocosfl.federation.averaging import mean_of_rows
from mocosfl.models.build import build_split
from mocosfl.runs.checkpoint_content import (
    CONFIG,
    HEADS,
    PROJECTOR_IN_HEAD,
    STATE,
    STEP,
    TRUNK,
)
from mocosfl.runs.folder import WHICH, RunFolder


class Encoder(NamedTuple):
    """A frozen encoder and what it was trained with."""

    network: nn.Module  # synchronised head and trunk: (B, 3, H, W) -> features (B, F)
    config: Config
    step: int  # training steps behind it
    source: str  # where it comes from, for tables


def check_which(which: str) -> None:
    """Check the name of a run's checkpoint.

    Raises:
        ValueError: it is neither `last` nor `best`.
    """
    if which not in WHICH:
        raise ValueError(f"which={which}: choose last or best")


def find_checkpoint(path: Path, which: str, *, key: str = "checkpoint") -> Path:
    """Return the checkpoint file that a user means.

    Args:
        path: a checkpoint file or a run folder.
        which: `last` or `best`, for a run folder.
        key: of the setting that names the path, for the message.

    Raises:
        FileNotFoundError: there is none.
        ValueError: `which` is something else.
    """
    check_which(which)
    if path.is_file():
        return path
    folder = RunFolder(path)
    file = folder.checkpoint(which)
    if not file.is_file():
        raise FileNotFoundError(
            f"{key}={path}: no {file.relative_to(path)} there; name a .ckpt file or the "
            "folder of a run that has written a checkpoint"
        )
    return file


def read_checkpoint(path: Path, *, key: str = "checkpoint") -> dict[str, Any]:
    """Read a checkpoint, tensors left on disk until they are used.

    Args:
        path: of the file.
        key: of the setting that names it, for the message.

    Raises:
        ValueError: the file is not one of ours, or is damaged.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise ValueError(
            f"{key}={path}: not a readable checkpoint ({type(error).__name__}); if it was "
            "cut off in a copy, copy it again"
        ) from error
    if not isinstance(checkpoint, dict) or not {CONFIG, STATE} <= checkpoint.keys():
        raise ValueError(f"{key}={path}: not written by mocosfl; name a .ckpt file of a run")
    return checkpoint


def config_of(checkpoint: dict[str, Any], source: str) -> Config:
    """Return the configuration that a checkpoint was trained with.

    Args:
        checkpoint: from `read_checkpoint`.
        source: how the user named it, "key=value".

    Raises:
        ValueError: it is that of another version.
    """
    return recorded_config(checkpoint[CONFIG], source, "use the version that wrote it")


def part_of(state: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint's `state_dict` below a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def synchronised_head(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the mean head in a checkpoint's `state_dict`, name -> tensor."""
    return {name: mean_of_rows(stacked) for name, stacked in part_of(state, HEADS).items()}


def read_encoder(path: Path) -> Encoder:
    """Return the encoder in a checkpoint: the synchronised head, then the trunk.

    Raises:
        ValueError: the file is not one of ours, or holds another network than it says.
    """
    checkpoint = read_checkpoint(path)
    config, state = config_of(checkpoint, f"checkpoint={path}"), checkpoint[STATE]
    split = build_split(config)
    heads = synchronised_head(state)
    # Of a whole network, what follows the features is left out.
    heads = {k: tensor for k, tensor in heads.items() if not k.startswith(PROJECTOR_IN_HEAD)}
    trunk = part_of(state, TRUNK)
    try:
        split.head.load_state_dict(heads)
        split.trunk.load_state_dict(trunk)
    except RuntimeError as error:
        raise ValueError(
            f"checkpoint={path}: its weights do not fit the configuration in it ({error})"
        ) from error
    network = nn.Sequential(split.head, split.trunk).float().requires_grad_(False).eval()
    return Encoder(network, config, checkpoint[STEP], str(path))


def check_has_head(config: Config, source: str) -> None:
    """Check that something crosses a cut in a run.

    Args:
        config: of the run.
        source: how the user named it, "key=value".

    Raises:
        ValueError: the whole network is on the client.
    """
    if is_whole_network(config):
        raise ValueError(
            f"{source}: has no head, method={config.method.name} keeps the whole network in one "
            "place and nothing crosses a cut; name a run of a method that cuts the network, such "
            "as mocosfl"
        )


def fingerprint(network: nn.Module) -> str:
    """Return the SHA-256 of all weights and buffers, to show that none has changed."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_same_run(checkpoint: Path, config: Config) -> None:
    """Compare the configuration in a checkpoint with the one to go on with.

    Raises:
        ValueError: names each key that differs.
    """
    recorded = config_of(read_checkpoint(checkpoint), str(checkpoint))
    theirs, ours = compared_values(recorded), compared_values(config)
    lines = [
        f"{key}={mine}: the checkpoint was trained with {other}"
        for key, mine, other in differences(ours, theirs)
        if key.split(".")[0] not in FREE_KEYS and key not in FREE_ON_RESUME
    ]
    if lines:
        raise ValueError(
            f"{checkpoint} is of another configuration than the run folder's config.yaml:\n"
            + "\n".join(lines)
            + "\nput config.yaml back as it was, or start a fresh run"
        )
