"""What the processor itself allows: the step's convolutions alone, and a large matrix product.

    python -m benchmarks.arithmetic              (two cores: about two minutes)

The convolutions are those of the server's trunk at the shapes of a step, each on its own over
ready tensors: forward twice (online and momentum) and backward once, of both views' rows. No
network that computes them by the same library can take a step in less time.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.configuration import build_alone
from benchmarks.contest import synchronise
from benchmarks.results import (
    Spread,
    Table,
    make_parser,
    parse,
    positive,
    publish,
    seconds,
    spread,
)
from mocosfl.system.device import keep_freed_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PRODUCT_SIZE = 4096  # of the square matrices


class Convolution(NamedTuple):
    """One of the trunk's convolutions at the shapes of a step."""

    layer: nn.Conv2d
    rows: Tensor  # (2B, in, H, W)
    out: Tensor  # (2B, out, H', W')

    @property
    def flops(self) -> float:
        """Floating-point operations of the forward pass; padding counts, as in most tables."""
        return 2.0 * self.out.numel() * self.layer.weight[0].numel()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    parser = make_parser("A step's convolutions alone, and a matrix product.", repeats=7)
    add = parser.add_argument
    add("--width", type=positive, default=64, help="of ResNet-18; 64 is full size")
    add("--image-size", type=positive, default=32, help="side, pixels")
    add("--cut", type=positive, default=1, help="cut layer")
    add("--rows", type=positive, default=100, help="images of a step")
    add("--product-size", type=positive, default=PRODUCT_SIZE, help="of the square matrices")
    options = parse(parser, arguments)
    torch.set_num_threads(options.threads)
    if options.device == "cpu":
        keep_freed_memory()  # as a run does; else fresh pages are counted too
    results = {name: _measure(dtype, options) for name, dtype in DTYPES.items()}
    publish("arithmetic", options, [_table(results)], {"precisions": results})


def _measure(dtype: torch.dtype, options: argparse.Namespace) -> dict[str, Any]:
    convolutions = _convolutions(dtype, options)
    size = options.product_size
    one, other = (torch.randn(size, size, dtype=dtype, device=options.device) for _ in range(2))
    product = _spread(lambda: torch.mm(one, other), options)
    forward = sum(_spread(_forward(c), options).median for c in convolutions)
    backward = sum(_spread(_backward(c), options).median for c in convolutions)
    flops = sum(c.flops for c in convolutions)
    return {
        "product_seconds": product._asdict(),
        "product_flops_per_second": 2.0 * size**3 / product.median,
        "forward_seconds": forward,
        "backward_seconds": backward,
        "step_seconds": 2 * forward + backward,
        # Backward is a convolution for the input and one for the weight.
        "step_flops": 4 * flops,
    }


def _convolutions(dtype: torch.dtype, options: argparse.Namespace) -> list[Convolution]:
    federation = build_alone(
        width=options.width, image_size=options.image_size, cut_layer=options.cut
    )
    trunk = federation.server.trunk.to(options.device, dtype).requires_grad_(False)
    found: list[Convolution] = []

    def note(layer: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        found.append(Convolution(layer, inputs[0].clone(), out.clone()))

    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        shape = (2 * options.rows, 3, options.image_size, options.image_size)
        images = torch.randn(shape, dtype=dtype, device=options.device)
        trunk(federation.clients.head.to(options.device, dtype)(images))
    return found


def _forward(convolution: Convolution) -> Callable[[], Any]:
    layer, rows = convolution.layer, convolution.rows
    # The weight as it is: standardising it is not the convolution's.
    return lambda: layer._conv_forward(rows, layer.weight, layer.bias)


def _backward(convolution: Convolution) -> Callable[[], Any]:
    layer, rows = convolution.layer, convolution.rows
    gradient = torch.randn_like(convolution.out)
    return lambda: torch.ops.aten.convolution_backward(
        gradient,
        rows,
        layer.weight,
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        False,
        [0, 0],
        layer.groups,
        [True, True, False],
    )


def _spread(piece: Callable[[], Any], options: argparse.Namespace) -> Spread:
    """Return the seconds of a piece; the first run is not counted."""
    measured = []
    with torch.no_grad():
        for _ in range(options.repeats + 1):
            synchronise(options.device)
            start = time.perf_counter()
            piece()
            synchronise(options.device)
            measured.append(time.perf_counter() - start)
    return spread(measured[1:])


def _table(results: dict[str, dict[str, Any]]) -> Table:
    columns = ["precision", "matrix product", "forward", "backward", "convolutions of a step", "at"]
    rows = [
        [
            name,
            f"{result['product_flops_per_second'] / 1e9:,.0f} GFLOP/s",
            seconds(result["forward_seconds"]),
            seconds(result["backward_seconds"]),
            seconds(result["step_seconds"]),
            f"{result['step_flops'] / result['step_seconds'] / 1e9:,.0f} GFLOP/s",
        ]
        for name, result in results.items()
    ]
    notes = [
        "Forward and backward: the trunk's convolutions once, over both views' rows. Of a step: "
        "forward online and momentum, and backward. Operations are counted with the padding, "
        "which the library leaves out: small pictures look quicker than the processor is."
    ]
    return Table("A step's convolutions alone", columns, rows, notes)


if __name__ == "__main__":
    main()
