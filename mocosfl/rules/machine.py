"""Whether this machine has what a configuration asks for; the other rules ask if it makes sense."""

import os
import shutil
from collections.abc import Iterator

import torch

from mocosfl.config.schema import Config
from mocosfl.rules.problems import refuse


def check_machine(config: Config) -> None:
    """Check that a run can start on this machine; no value is changed.

    Args:
        config: a valid configuration.

    Raises:
        ValueError: names all that is missing here, one a line: key, value, rule, way out.
    """
    refuse(
        [
            *_gpu(config.trainer.accelerator, "trainer.accelerator"),
            *_compiler(config),
            *_gpus(config),
        ]
    )


def check_gpu(accelerator: str) -> None:
    """Check that a command finds the GPU that it is asked to use.

    Raises:
        ValueError: there is none.
    """
    refuse(list(_gpu(accelerator, "accelerator")))


def _gpu(accelerator: str, key: str) -> Iterator[str]:
    if accelerator == "gpu" and not torch.cuda.is_available():
        yield f"{key}=gpu: no GPU here that this PyTorch can use; choose auto or cpu"


def _compiler(config: Config) -> Iterator[str]:
    compiler = os.environ.get("CXX", "g++")
    if config.trainer.compile and shutil.which(compiler) is None:
        yield (
            f"trainer.compile=true: torch.compile needs a C++ compiler, and {compiler} is not on "
            "the PATH; install one (or name it in the environment variable CXX), or use "
            "trainer.compile=false"
        )


def _gpus(config: Config) -> Iterator[str]:
    devices = config.trainer.devices
    gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    if devices > 1 and gpu and devices > torch.cuda.device_count():
        yield (
            f"trainer.devices={devices}: a process needs a GPU of its own, and there are "
            f"{torch.cuda.device_count()}; use at most that many, or trainer.accelerator=cpu"
        )
