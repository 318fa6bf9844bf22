"""A federation over a slow link that loses packets, with mutual TLS: what travels, and how long.

    python -m benchmarks.edge_link --data-dir data      (two cores: about 5 minutes; needs root)

The server is in one network namespace and each client's process in another; the link between them
is `tests/support/shaped_link.py`'s. The same run over the same link without limits, delay and loss
is there to compare with. Bytes on the link are whole IP packets, as the device counts them: with
TLS, HTTP/2, TCP, its acknowledgements, and what was sent again.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.configuration import Shape, overrides_of, real_images, write_noise
from benchmarks.edge_run import Places, run_networked
from benchmarks.results import Table, make_parser, parse, positive, publish, seconds
from mocosfl.edge.certificates import make_certificates
from tests.support.shaped_link import ADDRESSES, ShapedLink, Shaping, why_not

CIFAR10_IMAGES = 50_000
STEPS_BETWEEN_SYNCS = 10
PORT = 50061  # in a namespace of its own
UNLIMITED = Shaping(
    bits_per_second=1e12, delay_seconds=0.0, loss_probability=0.0, queue_bytes=2**30
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    options = parse(_parser(), arguments)
    reason = why_not()
    if reason is not None:
        raise SystemExit(reason)
    shaped = Shaping(
        bits_per_second=1e6 * options.megabits,
        delay_seconds=options.delay_milliseconds / 1000,
        loss_probability=options.loss_percent / 100,
    )
    found = {}
    with TemporaryDirectory() as scratch:
        overrides = _overrides(options, Path(scratch) / "images")
        certificates = Path(scratch) / "certificates"
        make_certificates(
            certificates, num_clients=options.clients, server_names=[ADDRESSES[0]], days=1
        )
        for precision in options.precisions:
            for name, shaping in (("without limits", UNLIMITED), ("shaped", shaped)):
                found[f"{precision}, {name}"] = run_over(
                    shaping,
                    (*overrides, f"edge.precision={precision}"),
                    Path(scratch) / precision / name.replace(" ", "_"),
                    certificates,
                    num_processes=options.clients,
                )
    publish("edge_link", options, _tables(found, options), {"runs": found})


def run_over(
    shaping: Shaping,
    overrides: Sequence[str],
    folder: Path,
    certificates: Path,
    *,
    num_processes: int,
) -> dict[str, Any]:
    """Run a federation over a link, and return what was seen of it, plain values.

    Args:
        shaping: of the link.
        overrides: of the server's command line; see `run_networked`.
        folder: new.
        certificates: with the server's for ADDRESSES[0].
        num_processes: that the clients are spread over.
    """
    with ShapedLink(shaping) as link:
        places = Places(
            f"{link.near.address}:{PORT}",
            server=tuple(link.near.prefix),
            clients=tuple(link.far.prefix),
            certificates=certificates,
        )
        result = run_networked(overrides, folder, places, num_processes=num_processes)
        result["link"] = link.far.counters()._asdict()  # sent: by the clients
    return result


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("A federation with mutual TLS over a slow, lossy link.", repeats=1)
    add = parser.add_argument
    add("--megabits", type=float, default=20.0, help="a second, in each direction, of all clients")
    add("--delay-milliseconds", type=float, default=30.0, help="one way")
    add("--loss-percent", type=float, default=1.0, help="of the packets")
    add("--clients", type=positive, default=4, help="N, each a process; all in the pool")
    add("--batch", type=positive, default=16, help="b, images a client and step")
    add("--steps", type=positive, default=50)
    add("--every", type=positive, default=5, help="steps between two looks at the server")
    add("--precisions", choices=("fp32", "fp16", "int8"), nargs="+", default=["fp32", "int8"])
    add("--data-dir", type=Path, default=None, help="with CIFAR-10's cache; None: synthetic images")
    add("--images-per-client", type=positive, default=800, help="synthetic ones")
    add("--image-size", type=positive, default=32, help="side of synthetic images, pixels")
    add("--width", type=positive, default=16, help="of ResNet-18; 64 is full size")
    add("--cut", type=positive, default=1, help="cut layer")
    add("--precision", choices=("fp32",), default="fp32", help="of the arithmetic")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more of the configuration")
    return parser


def _overrides(options: argparse.Namespace, scratch: Path) -> tuple[str, ...]:
    if options.data_dir is None:
        number = options.clients * options.images_per_client
        data = write_noise(scratch, num_images=number, image_size=options.image_size)
    else:
        number, data = CIFAR10_IMAGES, real_images(options.data_dir.absolute())
    shape = Shape(
        num_clients=options.clients,
        pool_size=options.clients,
        cut_layer=options.cut,
        width=options.width,
        steps_per_block=options.batch,
    )
    round_steps = number // (options.clients * options.batch)
    return (
        *overrides_of(shape, options, data),
        "split.bottleneck_channels=4",
        "split.bottleneck_stride=2",
        f"clients.batch_size={options.batch}",
        f"clients.syncs_per_round={max(1, round_steps // STEPS_BETWEEN_SYNCS)}",
        f"trainer.max_steps={options.steps}",
        f"trainer.log_every_steps={options.every}",
        *options.set,
    )


def _tables(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> list[Table]:
    columns = ["wire, link", "steps/s", "a step", "answers in time", "late", "lost connections"]
    speed = []
    for name, result in found.items():
        server, a_second = result["server"], result["steps_per_second"]
        speed.append([name, f"{a_second:.3g}", seconds(1 / a_second)])
        speed[-1] += [f"{server[key]:,}" for key in ("steps", "late_steps", "lost")]
    notes = [
        f"{options.megabits:g} Mbit/s, {options.delay_milliseconds:g} ms one way, "
        f"{options.loss_percent:g} % of the packets lost; {options.clients} clients of "
        f"{options.batch} images a step, {options.steps} steps, a sync every "
        f"{STEPS_BETWEEN_SYNCS}, C4S2, mutual TLS."
    ]
    bytes_columns = ["wire, link", "", "predicted", "tensors", "messages", "on the link"]
    bytes_columns += ["link / messages", "packets"]
    return [
        Table("Steps over a link", columns, speed, notes),
        Table("Bytes", bytes_columns, [row for n, r in found.items() for row in _bytes(n, r)]),
    ]


def _bytes(name: str, result: dict[str, Any]) -> list[list[str]]:
    server, link = result["server"], result["link"]
    rows = []
    for direction, seen in (("up", "sent"), ("down", "received")):
        tensors = (
            server["smashed_up"] + server["weights_up"]
            if direction == "up"
            else server["gradients_down"] + server["weights_down"]
        )
        messages, on_link = server[direction], link[f"{seen}_bytes"]
        numbers = server[f"predicted_{direction}"], tensors, messages, on_link
        rows.append([name, direction, *(f"{n:,}" for n in numbers)])
        rows[-1] += [f"{on_link / messages:.3f}", f"{link[f'{seen}_packets']:,}"]
    return rows


if __name__ == "__main__":
    main()
