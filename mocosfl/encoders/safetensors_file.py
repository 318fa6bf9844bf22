"""An exported encoder as a `.safetensors` file: its weights, and as metadata all the rest.

It holds no code and no pickle, and needs neither checkpoint nor configuration beside it.
"""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from mocosfl.encoders.facts import EncoderFacts, build_encoder_network, encoder_facts_from_metadata

_SIDES = ("head", "trunk")  # first part of the weights' names
# So that other libraries know whose tensors they are.
_FRAMEWORK = {"format": "pt"}


def write_encoder_file(network: nn.Sequential, facts: EncoderFacts, file: Path) -> None:
    """Write an encoder.

    Args:
        network: head and trunk.
        facts: what it is.
        file: to write, replaced where it is there.
    """
    tensors = {
        f"{side}.{name}": tensor.contiguous()
        for side, part in zip(_SIDES, network, strict=True)
        for name, tensor in part.state_dict().items()
    }
    # Not `save_file`, whose files nobody but their owner may read.
    file.write_bytes(save(tensors, metadata={**_FRAMEWORK, **facts.to_metadata()}))


def read_encoder_file(file: Path) -> tuple[nn.Sequential, EncoderFacts]:
    """Read an encoder: head and trunk, and what it is.

    Raises:
        ValueError: the file is damaged, or not written by `python -m mocosfl.export encoder`.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"checkpoint={file}: not a readable safetensors file ({error}); if it was cut off in a "
            "copy, copy it again"
        ) from error
    try:
        facts = encoder_facts_from_metadata(metadata)
        network = build_encoder_network(facts)
        for side, part in zip(_SIDES, network, strict=True):
            prefix = f"{side}."
            part.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"checkpoint={file}: not an encoder that this version of mocosfl has exported "
            f"({error}); export it again: python -m mocosfl.export encoder <run folder>"
        ) from error
    return network, facts
