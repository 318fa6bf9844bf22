"""Running the heads of all clients in one pass.

A pool of P clients is a leading dimension of every parameter, and a group of channels in every
activation: a batch is (b, P * C, H, W), a convolution has P times the groups, a GroupNorm P times
the groups. Layers without parameters need no change, so residual blocks keep their own code.

P: clients in the pool. b: images a client. C: channels of one client's activation.
"""

import copy
from collections.abc import Callable, Mapping

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
        self.groups_each = conv.groups

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (b, P * in, H, W) to (b, P * out, H', W')."""
        weight = standardise(self.weight) if self.standardised else self.weight
        bias = None if self.bias is None else self.bias.flatten()
        groups = len(weight) * self.groups_each
        return F.conv2d(
            x, weight.flatten(0, 1), bias, self.stride, self.padding, self.dilation, groups
        )


class FoldedGroupNorm(nn.Module):
    """P GroupNorms of the same shape as one."""

    def __init__(self, norm: nn.GroupNorm, num_clients: int) -> None:
        super().__init__()
        self.weight = _stack(norm.weight, num_clients)  # (P, C)
        self.bias = _stack(norm.bias, num_clients)
        self.groups_each = norm.num_groups
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (b, P * C, H, W)."""
        weight, bias = self.weight.flatten(), self.bias.flatten()
        return F.group_norm(x, len(self.weight) * self.groups_each, weight, bias, self.eps)


class FoldedLinear(nn.Module):
    """P linear layers of the same shape as one batched product."""

    def __init__(self, linear: nn.Linear, num_clients: int) -> None:
        super().__init__()
        self.weight = _stack(linear.weight, num_clients)  # (P, out, in)
        self.bias = None if linear.bias is None else _stack(linear.bias, num_clients)  # (P, out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, P * in) to (b, P * out)."""
        rows = x.unflatten(1, (len(self.weight), -1)).transpose(0, 1)  # (P, b, in)
        out = torch.bmm(rows, self.weight.transpose(1, 2))  # (P, b, out)
        if self.bias is not None:
            out = out + self.bias[:, None]
        return out.transpose(0, 1).flatten(1)


class FoldedBatchNorm1d(nn.Module):
    """P BatchNorms, each over its own client's rows.

    For the projector of a whole network on a client. It normalises by the batch alone and keeps no
    running statistics: only the momentum copies would need them, and those train likewise.
    """

    def __init__(self, norm: nn.BatchNorm1d, num_clients: int) -> None:
        super().__init__()
        self.weight = _stack(norm.weight, num_clients)  # (P, C)
        self.bias = _stack(norm.bias, num_clients)
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (b, P * C); b at least 2."""
        weight, bias = self.weight.flatten(), self.bias.flatten()
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=self.eps)


class FoldedConvTranspose2d(nn.Module):
    """P transposed convolutions of the same shape as one grouped one."""

    def __init__(self, conv: nn.ConvTranspose2d, num_clients: int) -> None:
        super().__init__()
        if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
            raise ValueError(f"a transposed convolution needs plain zero padding, not {conv}")
        self.weight = _stack(conv.weight, num_clients)  # (P, in, out / groups, kh, kw)
        self.bias = None if conv.bias is None else _stack(conv.bias, num_clients)
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation
        self.output_padding, self.groups_each = conv.output_padding, conv.groups

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (b, P * in, H, W) to (b, P * out, H', W')."""
        bias = None if self.bias is None else self.bias.flatten()
        return F.conv_transpose2d(
            x,
            self.weight.flatten(0, 1),
            bias,
            self.stride,
            self.padding,
            self.output_padding,
            len(self.weight) * self.groups_each,
            self.dilation,
        )


class FoldedBatchNorm2d(nn.Module):
    """P BatchNorms, each with its own client's statistics; for attackers' decoders, not for heads.

    The running statistics are buffers with a leading dimension of clients.
    """

    running_mean: Tensor  # (P, C)
    running_var: Tensor  # (P, C)

    def __init__(self, norm: nn.BatchNorm2d, num_clients: int) -> None:
        super().__init__()
        self.weight = _stack(norm.weight, num_clients)  # (P, C)
        self.bias = _stack(norm.bias, num_clients)
        if norm.momentum is None:
            raise ValueError(f"a decoder's BatchNorm needs a momentum, not a running mean: {norm}")
        for name in ("running_mean", "running_var"):
            values: Tensor = getattr(norm, name)
            self.register_buffer(name, values.expand(num_clients, *values.shape).clone())
        self.eps, self.momentum = norm.eps, norm.momentum

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (b, P * C, H, W); training moves the running statistics."""
        return F.batch_norm(
            x,
            self.running_mean.flatten(),
            self.running_var.flatten(),
            self.weight.flatten(),
            self.bias.flatten(),
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )


FOLDED: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Conv2d: FoldedConv2d,
    StandardisedConv2d: FoldedConv2d,
    nn.GroupNorm: FoldedGroupNorm,
    nn.Linear: FoldedLinear,
    nn.BatchNorm1d: FoldedBatchNorm1d,
}
# What an attacker's decoder has besides.
FOLDED_DECODER = {
    **FOLDED,
    nn.ConvTranspose2d: FoldedConvTranspose2d,
    nn.BatchNorm2d: FoldedBatchNorm2d,
}


def fold(
    head: nn.Module,
    num_clients: int,
    layers: Mapping[type[nn.Module], Callable[..., nn.Module]] = FOLDED,
) -> nn.Module:
    """Return `num_clients` copies of a head as one module.

    Its parameters have the head's names and a leading dimension of clients. It maps
    (b, P * C, H, W) to (b, P * c, h, w), or to (b, P * D) where the network ends in vectors; see
    `fold_images` and `unfold_images`. With fewer clients' parameters in their place
    (`torch.func.functional_call`) it runs those clients alone.

    Args:
        head: what each client starts from.
        num_clients: P.
        layers: the folded twin of each sort of layer.

    Raises:
        ValueError: a layer that cannot be folded, such as BatchNorm2d: with one image a client
            it has no batch to speak of, and with several its statistics would leave the client.
    """
    if type(head) in layers:
        return layers[type(head)](head, num_clients)
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
        folded._modules[name] = None if child is None else fold(child, num_clients, layers)
    return folded


def fold_images(images: Tensor) -> Tensor:
    """Lay (P, b, C, H, W) out as (b, P * C, H, W)."""
    return images.transpose(0, 1).flatten(1, 2)


def unfold_images(folded: Tensor, num_clients: int) -> Tensor:
    """Bring (b, P * c, ...) into the order of the clients, (P * b, c, ...)."""
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
