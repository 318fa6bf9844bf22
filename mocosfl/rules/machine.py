"""Whether this machine has what a configuration asks for."""

from collections.abc import Iterator

import torch

ACCELERATORS = ("auto", "cpu", "gpu")


def accelerator_rules(accelerator: str, key: str = "accelerator") -> Iterator[str]:
    """Yield a line where an accelerator is unknown, or not here.

    Args:
        accelerator: what was chosen.
        key: of the configuration.
    """
    if accelerator not in ACCELERATORS:
        yield f"{key}={accelerator}: unknown; choose one of {', '.join(ACCELERATORS)}"
    if accelerator == "gpu" and not torch.cuda.is_available():
        yield f"{key}=gpu: no GPU here that this PyTorch can use; choose auto or cpu"
