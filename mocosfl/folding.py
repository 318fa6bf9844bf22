"""Running the heads of all clients in one pass.

A pool of P clients is a leading dimension of every parameter, and a group of channels in every
activation: a batch is (b, P * C, H, W), a convolution has P times the groups, a GroupNorm P times
the groups. Layers without parameters need no change, so residual blocks keep their own code.

P: clients in the pool. b: images a client. C: channels of one client's activation.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl.models.layers import StandardisedConv2d, standardise

# Layers that treat each channel alone, so they need no client dimension.
CHANNELWISE = (nn.ReLU, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


def _stack(parameter: Tensor, num_clients: int) -> nn.Parameter:
    copies = parameter.detach().expand(num_clients, *parameter.shape).clone()
    return nn.Parameter(copies, requires_grad=parameter.requires_grad)


class FoldedConv2d(nn.Module):
    """P convolutions of the same shape as one grouped convolution."""

    def __init__(self, conv: nn.Conv2d, num_clients: int) -> None:
        super().__init__()
        if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
            raise ValueError(f"a head's convolution needs plain zero padding, not {conv}")
        self.weight = _stack(conv.weight, num_clients)  # (P, out, in / groups, kh, kw)
        self.bias = None if conv.bias is None else _stack(conv.bias, num_clients)
        self.standardised = isinstance(conv, StandardisedConv2d)
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation
        self.groups = num_clients * conv.groups

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (b, P * in, H, W) to (b, P * out, H', W')."""
        weight = standardise(self.weight) if self.standardised else self.weight
        bias = None if self.bias is None else self.bias.flatten()
        return F.conv2d(
            x, weight.flatten(0, 1), bias, self.stride, self.padding, self.dilation, self.groups
        )


class FoldedGroupNorm(nn.Module):
    """P GroupNorms of the same shape as one."""

    def __init__(self, norm: nn.GroupNorm, num_clients: int) -> None:
        super().__init__()
        self.weight = _stack(norm.weight, num_clients)  # (P, C)
        self.bias = _stack(norm.bias, num_clients)
        self.num_groups = num_clients * norm.num_groups
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (b, P * C, H, W)."""
        weight, bias = self.weight.flatten(), self.bias.flatten()
        return F.group_norm(x, self.num_groups, weight, bias, self.eps)


FOLDED: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Conv2d: FoldedConv2d,
    StandardisedConv2d: FoldedConv2d,
    nn.GroupNorm: FoldedGroupNorm,
}


def fold(head: nn.Module, num_clients: int) -> nn.Module:
    """Return `num_clients` copies of a head as one module.

    Its parameters have the head's names and a leading dimension of clients. It maps
    (b, P * C, H, W) to (b, P * c, h, w); see `fold_images` and `unfold_images`.

    Raises:
        ValueError: a layer that cannot be folded, such as BatchNorm: with one image a client
            it has no batch to speak of, and with several its statistics would leave the client.
    """
    if type(head) in FOLDED:
        return FOLDED[type(head)](head, num_clients)
    if isinstance(head, CHANNELWISE):
        return copy.deepcopy(head)
    own = [*head._parameters.values(), *head._buffers.values()]
    if any(tensor is not None for tensor in own) or not list(head.children()):
        raise ValueError(
            f"{type(head).__name__} cannot run on a client: heads are made of convolutions, "
            "GroupNorm, ReLU and pooling (use GroupNorm in place of BatchNorm)"
        )
    # The container's code stays and its parts change: a deep copy that keeps the children as they
    # are. A shallow one would share the dictionaries of hooks with the head.
    folded = copy.deepcopy(head, {id(child): child for child in head.children()})
    for name, child in head._modules.items():
        folded._modules[name] = None if child is None else fold(child, num_clients)
    return folded


def fold_images(images: Tensor) -> Tensor:
    """Lay (P, b, C, H, W) out as (b, P * C, H, W)."""
    return images.transpose(0, 1).flatten(1, 2)


def unfold_images(folded: Tensor, num_clients: int) -> Tensor:
    """Bring (b, P * c, h, w) into pool order, (P * b, c, h, w)."""
    parts = folded.reshape(len(folded), num_clients, -1, *folded.shape[2:])  # (b, P, c, h, w)
    return parts.transpose(0, 1).flatten(0, 1)


def stacked_state(folded: nn.Module) -> dict[str, Tensor]:
    """Return name -> (P, ...) of a folded head's parameters, detached, sharing memory."""
    return {name: parameter.detach() for name, parameter in folded.named_parameters()}


def load_single(head: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy one client's parameters, name -> tensor, into an ordinary head."""
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            parameter.copy_(state[name])
