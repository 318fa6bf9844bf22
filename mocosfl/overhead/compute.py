"""Multiply-accumulate operations (MACs) of a step, on a client and on the server.

Counted by torch's counter on tensors without memory: convolutions and matrix products, which are
almost all of the work; normalisation, ReLU, the EMA and the optimizers are left out. 1 MAC = 2
FLOPs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from mocosfl.config.choices import Symmetric
from mocosfl.config.derived import is_frozen, is_supervised, num_views, queue_shape
from mocosfl.config.schema import Config
from mocosfl.overhead.network import Network


class ClientMacs(NamedTuple):
    """MACs of one client in a step."""

    counted: int  # everything it runs
    paper: int  # passes of the same size: online, backward, momentum; frozen: the online one alone


def client_macs(config: Config, network: Network, batch_size: int) -> ClientMacs:
    """Count a client's step.

    Args:
        config: a valid configuration.
        network: of the configuration.
        batch_size: b of the client, images.
    """
    frozen = is_frozen(config)
    # Evaluation mode: BatchNorm costs the same and takes a single image.
    client = network.client.requires_grad_(not frozen).eval()
    size = config.dataset.image_size
    images = torch.empty(batch_size * num_views(config), 3, size, size, device="meta")
    forward = count_macs(lambda: _no_grad(client, images))
    trained = 0 if frozen else count_macs(lambda: client(images).sum().backward())
    momentum = 0 if is_supervised(config) else forward
    online = trained if trained else forward
    logits = 0
    if network.server is None and not is_supervised(config):
        logits = 2 * len(images) * config.moco.projector_dim * queue_shape(config)[1]
    passes = 1 if frozen else 2 if is_supervised(config) else 3
    return ClientMacs(online + momentum + logits, passes * forward)


def server_macs(config: Config, network: Network, rows: int) -> int:
    """Count the server's step: trunk and projector forward and backward, the keys, the logits.

    Args:
        config: a valid configuration.
        network: of the configuration.
        rows: images of all clients in the step.
    """
    server = network.server
    if server is None or network.smashed_shape is None:
        return 0
    rows *= num_views(config)
    smashed = torch.empty(rows, *network.smashed_shape, device="meta")
    server.eval()
    query = smashed.clone().requires_grad_(not is_frozen(config))
    first = count_macs(lambda: server(query).sum().backward())
    if is_supervised(config):
        return first
    key = count_macs(lambda: _no_grad(server, smashed))
    logits = 2 * rows * config.moco.projector_dim * queue_shape(config)[1]  # forward and backward
    if config.moco.symmetric is not Symmetric.server:
        return first + key + logits
    # With the roles exchanged: no gradient goes back to the key that is now the query.
    second = count_macs(lambda: server(smashed).sum().backward())
    return first + second + 2 * (key + logits)


def count_macs(run: Callable[[], Any]) -> int:
    """Return the MACs of what a function runs, forward and backward."""
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _backward_flops}
    )
    with counter:
        run()
    return counter.get_total_flops() // 2


def _backward_flops(
    grad_shape: list[int],
    input_shape: list[int],
    weight_shape: list[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: list[bool],
    out_shape: Any = None,
) -> int:
    """Count a convolution's backward pass: each of its two gradients costs a forward pass.

    Torch's own count of the weight's gradient is too large by the number of groups.
    """
    forward = conv_flop_count(input_shape, weight_shape, grad_shape, transposed=transposed)
    return forward * sum(output_mask[:2])


def _no_grad(module: nn.Module, rows: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = module(rows)
        return out
