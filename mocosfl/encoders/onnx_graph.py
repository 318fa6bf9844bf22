"""A head, or a whole encoder, as an ONNX graph.

The graph is written node by node from torch.fx's trace of the network, not by `torch.onnx.export`:
that needs a package more and five seconds, writes the arithmetic of weight standardisation into
the graph, to be done again for every image, and its operator set and file version follow
torch's, when it is the oldest onnxruntime on a device that has to read them. The layers of our
networks are few: what is not known here is an error, never left out.

Legend: B rows, c channels, h and w height and width, G groups of a GroupNorm.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from mocosfl.models.layers import StandardisedConv2d, standardise
from mocosfl.models.normalisation import Normalisation

OPSET = 17  # any newer runtime reads it
IR_VERSION = 8  # of the file; what goes with opset 17, and onnxruntime reads it since 1.13 (2022)


class _Tracer(fx.Tracer):
    """Takes a convolution as one operation, its standardisation included; normalisation too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = isinstance(m, nn.Conv2d | Normalisation)
        return ours or super().is_leaf_module(m, module_qualified_name)


def to_onnx(
    network: nn.Module, image_size: int, *, input_name: str, output_name: str, name: str = "head"
) -> onnx.ModelProto:
    """Write a network of convolutions, GroupNorms, ReLUs, pools and additions as ONNX.

    Args:
        network: (B, 3, S, S) -> (B, c, h, w) or (B, F), float32, on the CPU.
        image_size: S, pixels.
        input_name: of the graph's input.
        output_name: of its output.
        name: of the graph.

    Returns:
        A model with any B, weights inside, standardised once and for all.

    Raises:
        NotImplementedError: the network has a layer of another kind.
    """
    traced = fx.GraphModule(network, _Tracer().trace(network))
    with torch.no_grad():
        ShapeProp(traced).propagate(torch.zeros(1, 3, image_size, image_size))
        writer = _Writer(traced, input_name, output_name)
    return helper.make_model(
        writer.graph(name),
        producer_name="mocosfl",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )


class _Writer:
    """Collects the nodes and constants of a graph; values have the names of fx's nodes."""

    def __init__(self, traced: fx.GraphModule, input_name: str, output_name: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.names: dict[fx.Node, str] = {}
        for node in traced.graph.nodes:
            self._write(traced, node, input_name, output_name)

    def graph(self, name: str) -> onnx.GraphProto:
        """Return all of it."""
        return helper.make_graph(
            self.nodes, name, self.inputs, self.outputs, initializer=self.constants
        )

    def _write(
        self, traced: fx.GraphModule, node: fx.Node, input_name: str, output_name: str
    ) -> None:
        if node.op == "placeholder":
            self.names[node] = input_name
            self.inputs.append(_value_info(input_name, node))
        elif node.op == "output":
            last = self._inputs(node)[0]
            self.nodes.append(helper.make_node("Identity", [last], [output_name]))
            self.outputs.append(_value_info(output_name, node))
        else:
            what = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
            self.names[node] = self._operation(node, node.target if what is None else what)

    def _operation(self, node: fx.Node, what: Any) -> str:
        """Write an operation; returns the name of what comes out."""
        if what in _WITH_ONE and node.args[1:] == (1,):
            kind, attributes = _WITH_ONE[what]
            return self._add(kind, node.name, [self.names[node.all_input_nodes[0]]], **attributes)
        inputs = self._inputs(node)
        if isinstance(what, nn.Conv2d | nn.ConvTranspose2d):
            return self._convolution(node.name, what, inputs)
        if isinstance(what, nn.GroupNorm):
            return self._group_norm(node, what, inputs)
        if isinstance(what, nn.MaxPool2d):
            return self._add("MaxPool", node.name, inputs, **_pool_attributes(what))
        if isinstance(what, Normalisation):
            return self._normalisation(node.name, what, inputs)
        if isinstance(what, nn.Identity):
            return inputs[0]
        if what not in _FUNCTIONS:
            raise NotImplementedError(f"{node.name}: no ONNX is known for {what}")
        return self._add(_FUNCTIONS[what], node.name, inputs)

    def _inputs(self, node: fx.Node) -> list[str]:
        sources = [argument for argument in node.args if isinstance(argument, fx.Node)]
        if len(sources) < len(node.args):
            raise NotImplementedError(f"{node.name}: no ONNX is known for its {node.args}")
        return [self.names[source] for source in sources]

    def _add(self, kind: str, name: str, inputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _constant(self, name: str, values: Tensor) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values.contiguous()), name))
        return name

    def _normalisation(self, name: str, layer: Normalisation, inputs: list[str]) -> str:
        mean = self._constant(f"{name}.mean", layer.mean)
        std = self._constant(f"{name}.std", layer.std)
        centred = self._add("Sub", f"{name}.centred", [*inputs, mean])
        return self._add("Div", name, [centred, std])

    def _convolution(
        self, name: str, conv: nn.Conv2d | nn.ConvTranspose2d, inputs: list[str]
    ) -> str:
        if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
            raise NotImplementedError(f"{name}: no ONNX is known for {conv}")
        standardised = isinstance(conv, StandardisedConv2d)
        weight = standardise(conv.weight) if standardised else conv.weight.detach()
        inputs = [*inputs, self._constant(f"{name}.weight", weight)]
        if conv.bias is not None:
            inputs.append(self._constant(f"{name}.bias", conv.bias.detach()))
        transposed = isinstance(conv, nn.ConvTranspose2d)
        more = {"output_padding": conv.output_padding} if transposed else {}
        return self._add(
            "ConvTranspose" if transposed else "Conv",
            name,
            inputs,
            **more,
            kernel_shape=conv.kernel_size,
            strides=conv.stride,
            pads=[*conv.padding, *conv.padding],
            dilations=conv.dilation,
            group=conv.groups,
        )

    def _group_norm(self, node: fx.Node, norm: nn.GroupNorm, inputs: list[str]) -> str:
        """Normalise each group as one channel, then scale each channel.

        ONNX has GroupNormalization, but not in this opset, and with weights a group in the next.
        """
        name, shape, groups = node.name, _shape(node), norm.num_groups
        one, zero = torch.ones(groups), torch.zeros(groups)
        unit = [self._constant(f"{name}.one", one), self._constant(f"{name}.zero", zero)]
        by_group = self._constant(f"{name}.by_group", torch.tensor([0, groups, -1]))
        by_channel = self._constant(f"{name}.by_channel", torch.tensor([0, *shape]))
        weight, bias = norm.weight.detach(), norm.bias.detach()
        scale = self._constant(f"{name}.weight", weight[:, None, None])
        shift = self._constant(f"{name}.bias", bias[:, None, None])
        grouped = self._add("Reshape", f"{name}.grouped", [*inputs, by_group])
        normal = self._add(
            "InstanceNormalization", f"{name}.normal", [grouped, *unit], epsilon=norm.eps
        )
        apart = self._add("Reshape", f"{name}.apart", [normal, by_channel])
        scaled = self._add("Mul", f"{name}.scaled", [apart, scale])
        return self._add("Add", name, [scaled, shift])


_FUNCTIONS: dict[Callable[..., Any], str] = {F.relu: "Relu", operator.add: "Add"}
# Functions whose second argument is a 1: pooled to one pixel, flattened from dimension 1 on.
_WITH_ONE: dict[Callable[..., Any], tuple[str, dict[str, Any]]] = {
    F.adaptive_avg_pool2d: ("GlobalAveragePool", {}),
    torch.flatten: ("Flatten", {"axis": 1}),
}


def _pool_attributes(pool: nn.MaxPool2d) -> dict[str, Any]:
    def pair(value: Any) -> list[int]:
        return list(value) if isinstance(value, tuple) else [value, value]

    return {
        "kernel_shape": pair(pool.kernel_size),
        "strides": pair(pool.stride),
        "pads": pair(pool.padding) * 2,
        "dilations": pair(pool.dilation),
        "ceil_mode": int(pool.ceil_mode),
    }


def _shape(node: fx.Node) -> tuple[int, ...]:
    """Return (c, h, w) of what comes out of a node."""
    return tuple(node.meta["tensor_meta"].shape[1:])


def _value_info(name: str, node: fx.Node) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *_shape(node)])
