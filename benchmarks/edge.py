"""Steps a second, the server's memory and all bytes of a federation of real streams.

    python -m benchmarks.edge --data-dir data           (two cores: over an hour)
    python -m benchmarks.edge --steps 50 --precisions fp32

One server process, and a few processes with many clients each, all on this machine; before them the
same configuration as a simulation. The server's memory is read at every so many steps: flat is
what it has to be. With `--probe` the encoders are compared too.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.configuration import Shape, overrides_of, real_images, write_noise
from benchmarks.edge_run import loopback, run_networked, run_simulated
from benchmarks.results import Table, make_parser, megabytes, parse, positive, publish, seconds

SIMULATION = "simulation"
MB = 2**20


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    options = parse(_parser(), arguments)
    found: dict[str, dict[str, Any]] = {}
    with TemporaryDirectory() as scratch:
        overrides = _overrides(options, Path(scratch) / "images")
        if options.simulation:
            found[SIMULATION] = run_simulated(overrides, Path(scratch) / SIMULATION)
        for precision in options.precisions:
            folder = Path(scratch) / precision
            found[precision] = run_networked(
                (*overrides, f"edge.precision={precision}"),
                folder,
                loopback(),
                num_processes=options.processes,
            )
            shutil.rmtree(folder)  # its checkpoint may be large
    publish("edge", options, _tables(found, options), {"runs": found})


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("Steps a second, memory and bytes of real streams.", repeats=1)
    add = parser.add_argument
    add("--clients", type=positive, default=100, help="N, all of them in the pool")
    add("--batch", type=positive, default=1, help="b, images a client and step")
    add("--processes", type=positive, default=2, help="that the clients are spread over")
    add("--steps", type=positive, default=1000)
    add("--every", type=positive, default=20, help="steps between two looks at the server")
    add(
        "--precisions",
        choices=("fp32", "fp16", "int8"),
        nargs="+",
        default=["fp32", "fp16", "int8"],
        help="on the wire",
    )
    add("--simulation", action=argparse.BooleanOptionalAction, default=True, help="run it too")
    add("--probe", action="store_true", help="all encoders at the end")
    add("--data-dir", type=Path, default=None, help="with CIFAR-10's cache; None: synthetic images")
    add("--images-per-client", type=positive, default=50, help="synthetic ones")
    add("--image-size", type=positive, default=32, help="side of synthetic images, pixels")
    add("--width", type=positive, default=16, help="of ResNet-18; 64 is full size")
    add("--cut", type=positive, default=1, help="cut layer")
    add("--precision", choices=("fp32",), default="fp32", help="of the arithmetic")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more of the configuration")
    return parser


def _overrides(options: argparse.Namespace, scratch: Path) -> tuple[str, ...]:
    """Return what server and simulation have in common."""
    if options.data_dir is None:
        number = options.clients * options.images_per_client
        data = write_noise(scratch, num_images=number, image_size=options.image_size)
    else:
        data = real_images(options.data_dir.absolute())
    shape = Shape(
        num_clients=options.clients,
        pool_size=options.clients,
        cut_layer=options.cut,
        width=options.width,
        steps_per_block=options.batch,
    )
    return (
        *overrides_of(shape, options, data),
        "split.bottleneck_channels=4",
        "split.bottleneck_stride=2",
        f"clients.batch_size={options.batch}",
        # The published rule for so many rows.
        f"clients.syncs_per_round={max(1, 1000 // (options.clients * options.batch))}",
        f"trainer.max_steps={options.steps}",
        f"trainer.log_every_steps={options.every}",  # a row of metrics.csv is how we see a step
        f"callbacks.probe_at_end={str(options.probe).lower()}",
        # All take part in each step, as in the simulation, however slow this machine is.
        f"edge.min_clients={options.clients}",
        "edge.step_deadline_seconds=120",
        *options.set,  # once more: the last word
    )


def _tables(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> list[Table]:
    networked = {name: result for name, result in found.items() if name != SIMULATION}
    tables = [_speed(found, options), _memory(networked, options), _traffic(networked)]
    return [*tables, _accuracy(found, options)] if options.probe else tables


def _speed(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> Table:
    columns = ["wire", "steps/s", "a step", "against the simulation", "CPU of the server, a step"]
    columns += ["CPU of all clients, a step", "loss at the end"]
    simulated = found.get(SIMULATION)
    rows = []
    for name, result in found.items():
        speed = result["steps_per_second"]
        against = f"{speed / simulated['steps_per_second']:.3g}" if simulated else ""
        on_clients = seconds(result["clients_cpu_seconds"]) if name != SIMULATION else ""
        of_server = seconds(result["server_cpu_seconds"])
        rows.append([name, f"{speed:.3g}", seconds(1 / speed), against, of_server, on_clients])
        rows[-1].append(f"{result['loss']:.4f}")
    notes = [
        f"{options.clients} clients of {options.batch} images a step in {options.processes} "
        f"processes on the server's own machine, {options.steps} steps, width {options.width}, cut "
        f"{options.cut}, C4S2. The loss is the mean of the last logged ones.",
    ]
    return Table("Steps", columns, rows, notes)


def _memory(networked: dict[str, dict[str, Any]], options: argparse.Namespace) -> Table:
    columns = ["wire", "server, first", "last", "most", "growth a step", "a process of clients"]
    rows = [
        [
            name,
            *(megabytes(result[f"{which}_bytes"]) for which in ("first", "last", "most")),
            f"{result['bytes_a_step'] / 1024:.2f} KB",
            megabytes(result["clients_bytes"] / min(options.processes, options.clients)),
        ]
        for name, result in networked.items()
    ]
    notes = [
        f"Without pages of files; first is at step {options.every}. Growth: the slope of a line "
        f"through all looks, every {options.every} steps."
    ]
    return Table("Memory", columns, rows, notes)


def _traffic(networked: dict[str, dict[str, Any]]) -> Table:
    columns = ["wire", "", "tensors, bytes", "predicted", "heads to start from", "messages"]
    columns += ["beside the tensors"]
    rows = []
    for name, result in networked.items():
        server = result["server"]
        up = server["smashed_up"] + server["weights_up"], 0
        down = server["gradients_down"] + server["weights_down"], server["heads_down"]
        for direction, (tensors, heads) in (("up", up), ("down", down)):
            numbers = tensors, server[f"predicted_{direction}"], heads, server[direction]
            beside = server[f"other_{direction}"] / (tensors + heads)
            rows.append([name, direction, *(f"{n:,}" for n in numbers), f"{100 * beside:.2f} %"])
    notes = ["Of all clients, by the server's count; protobuf, without HTTP/2, TLS and TCP."]
    return Table("Bytes", columns, rows, notes)


def _accuracy(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> Table:
    columns = ["wire", "loss at the end", "kNN, %", "linear probe, %", "a client's MB, up + down"]
    rows = []
    for name, result in found.items():
        probes, server = result["probes"], result.get("server")
        linear = probes["probes"]["linear"]["final_top1"]
        sent = ""
        if server is not None:
            sent = " + ".join(f"{server[way] / options.clients / MB:.2f}" for way in ("up", "down"))
        accuracies = (f"{100 * value:.2f}" for value in (probes["knn_top1"], linear))
        rows.append([name, f"{result['loss']:.4f}", *accuracies, sent])
    return Table("Accuracy", columns, rows, ["Top-1 on the test images, behind the last step."])


if __name__ == "__main__":
    main()
