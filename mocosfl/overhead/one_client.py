"""What memory one client needs: run in a process of its own by `overhead/memory.py`.

    python -m mocosfl.overhead.one_client < job.yaml

The job holds `config`, a run's configuration, and `batch_size`. Prints the peak of the resident
memory in two of one client's steps, bytes above what the process held before, with torch imported
and the same steps done once. The client is the one that trains on a device, with one CPU thread.
"""

import ctypes
import gc
import os
import re
import sys
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from mocosfl.config.derived import (
    is_frozen,
    is_supervised,
    is_whole_network,
    num_views,
    queue_shape,
)
from mocosfl.config.schema import Config
from mocosfl.federation.queue import KeyQueue
from mocosfl.federation.server import Server, SmashedStep
from mocosfl.federation.single_client import SingleClient
from mocosfl.federation.step_input import ClientGroup
from mocosfl.overhead.network import build_network

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # see man proc_pid_clear_refs
NUM_STEPS = 2  # the SGD buffer is made in the first


def available() -> bool:
    """Return whether this system tells a process's peak and lets it be reset."""
    return _STATUS.is_file() and "VmHWM:" in _STATUS.read_text() and os.access(_CLEAR, os.W_OK)


def reset_peak() -> int:
    """Forget the peak so far; returns the resident bytes now."""
    _CLEAR.write_text(_RESET_PEAK)
    return _kilobytes("VmRSS") * 1024


def peak() -> int:
    """Return the largest resident bytes since `reset_peak`."""
    return _kilobytes("VmHWM") * 1024


def _kilobytes(name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


def run_steps(config: Config, batch_size: int) -> None:
    """Run a client's steps on random images; what comes from the server is random too."""
    client, server = _make_client(config), own_server(config)
    size = config.dataset.image_size
    bf16 = torch.autocast("cpu", torch.bfloat16, enabled=config.trainer.precision == "bf16")
    for _ in range(NUM_STEPS):
        views = torch.rand(2, batch_size, 3, size, size, dtype=_dtype(config))
        with bf16:
            _step(config, client, server, views)


def _dtype(config: Config) -> torch.dtype:
    return torch.float64 if config.trainer.precision == "fp64" else torch.float32


def _make_client(config: Config) -> SingleClient:
    return SingleClient(
        _filled(build_network(config).client, _dtype(config)),
        frozen=is_frozen(config),
        both_views=num_views(config) == 2,
        tau=config.moco.momentum,
        sgd_momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
        supervised=is_supervised(config),
    )


def own_server(config: Config) -> Server | None:
    """Return the "server" of a client that computes the contrastive loss itself, else None."""
    if not is_whole_network(config) or is_supervised(config):
        return None
    (_, length), generator = queue_shape(config), torch.Generator()
    server = Server(
        nn.Identity(),
        nn.Identity(),
        KeyQueue(1, length, dim=config.moco.projector_dim, generator=generator),
        temperature=config.moco.temperature,
        momentum=config.moco.momentum,
        two_sided=False,
    )
    return server.double() if config.trainer.precision == "fp64" else server


def _filled(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    # In evaluation mode, so that BatchNorm takes a single image; it holds the same tensors.
    network = network.to_empty(device="cpu").to(dtype).eval()
    for tensor in network.state_dict().values():
        tensor.fill_(0.01)
    return network


def _step(config: Config, client: SingleClient, server: Server | None, views: Tensor) -> None:
    query, key = client.smash(views[0], None if is_supervised(config) else views[1])
    if client.frozen:
        return
    learning_rate = config.optimizer.client_lr
    if server is None:
        client.learn(query, torch.rand_like(query), learning_rate)
    else:
        assert key is not None
        client.learn(own_loss(server, query, key), None, learning_rate)


def own_loss(server: Server, query: Tensor, key: Tensor) -> Tensor:
    """Compute a whole network's loss on its client, and enqueue the keys; rows (B, D)."""
    alone = torch.zeros(1, dtype=torch.long)
    group = ClientGroup(places=alone, batch_size=len(query))
    passes = server.contrast(SmashedStep(query, key, None, pool=alone, groups=(group,)))
    server.enqueue(passes.keys)
    return passes.output.loss


def _warm_up(config: Config, batch_size: int) -> None:
    """Run the steps once and give the memory back.

    What stays is the libraries' own: their code in memory and the kernels made for these shapes.
    """
    run_steps(config, batch_size)
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others keep little
    if trim is not None:
        trim(0)


def main() -> None:
    """Read the job from standard input, print the bytes."""
    job: Any = OmegaConf.create(sys.stdin.read())
    config = cast(Config, OmegaConf.merge(OmegaConf.structured(Config), job.config))
    torch.set_num_threads(1)
    _warm_up(config, job.batch_size)
    before = reset_peak()
    run_steps(config, job.batch_size)
    print(max(0, peak() - before))


if __name__ == "__main__":
    main()
