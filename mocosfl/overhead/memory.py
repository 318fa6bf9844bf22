"""Memory of one client in a step: counted by tensor, and measured in a process of its own."""

import subprocess
import sys
from typing import NamedTuple

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mocosfl.config.derived import is_frozen, is_supervised, num_views
from mocosfl.config.schema import Config
from mocosfl.overhead.network import Network, build_network, num_parameters, num_values
from mocosfl.overhead.one_client import available, own_loss, own_server
from mocosfl.overhead.traffic import WEIGHT_BYTES

TIMEOUT_SECONDS = 120  # of the measurement; a head takes about 5


class CountedMemory(NamedTuple):
    """Bytes that a client's tensors take; what the libraries need for themselves is not in it."""

    parameters: int
    momentum_copy: int  # 0 where frozen: it is the head itself
    sgd_buffer: int
    gradients: int
    activations: int  # kept for the backward pass
    images: int  # the views
    queue: int  # where the whole network is on the client

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


class MeasuredMemory(NamedTuple):
    """What a process needs for one client's steps above what it needs without."""

    peak_bytes: int | None  # None: not measured
    why_not: str  # "" where it was measured


def count_memory(config: Config, network: Network, batch_size: int) -> CountedMemory:
    """Count the bytes of a client's tensors.

    Args:
        config: a valid configuration.
        network: of the configuration.
        batch_size: b of the client, images.
    """
    size, frozen = config.dataset.image_size, is_frozen(config)
    supervised, weight_bytes = is_supervised(config), WEIGHT_BYTES[config.trainer.precision]
    values = num_values(network.client) * weight_bytes
    trained = 0 if frozen else num_parameters(network.client) * weight_bytes
    num_inputs = batch_size * (1 if supervised else 2)  # online and momentum see the same two views
    with torch.device("meta"):
        server = own_server(config)
    return CountedMemory(
        parameters=values,
        momentum_copy=0 if frozen or supervised else values,
        sgd_buffer=trained if config.optimizer.momentum > 0 else 0,
        gradients=trained,
        activations=0 if frozen else _saved_bytes(config, batch_size * num_views(config)),
        images=num_inputs * 3 * size * size * weight_bytes,
        queue=0 if server is None else server.queue.keys.numel() * weight_bytes,
    )


def _saved_bytes(config: Config, rows: int) -> int:
    """Return the bytes that autograd keeps of a forward pass, each storage once, weights not."""
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    size, precision = config.dataset.image_size, config.trainer.precision
    with FakeTensorMode():  # shapes and types of the CPU, autocast's too, without memory or work
        client, server = build_network(config, "cpu").client.eval(), own_server(config)
        images = torch.empty(rows, 3, size, size)
        bf16 = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), bf16:
            query = client(images)
            if server is not None:
                own_loss(server, query, query.detach())
        counted_elsewhere = {t.untyped_storage()._cdata for t in (images, *client.parameters())}
        kept = sum(
            tensor.untyped_storage().nbytes()
            for storage, tensor in saved.items()
            if storage not in counted_elsewhere
        )
    # A fake network can't be turned to fp64, where everything is twice as large.
    return 2 * kept if precision == "fp64" else kept


def measure_memory(config: Config, batch_size: int) -> MeasuredMemory:
    """Run one client's steps in a process of its own and take its peak.

    Args:
        config: a valid configuration.
        batch_size: b of the client, images.
    """
    if not config.callbacks.measure_client_memory:
        return MeasuredMemory(None, "callbacks.measure_client_memory=false")
    if not available():
        return MeasuredMemory(None, "this system does not tell a process's peak (Linux does)")
    job = {"config": OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)}
    job["batch_size"] = batch_size
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mocosfl.overhead.one_client"],
            input=OmegaConf.to_yaml(OmegaConf.create(job)),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return MeasuredMemory(None, f"two steps took more than {TIMEOUT_SECONDS} s")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return MeasuredMemory(None, f"the process failed: {reason}")
    return MeasuredMemory(int(done.stdout), "")
