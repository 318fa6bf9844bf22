"""Step time and memory against the number of clients, at a pool of one size.

    python -m benchmarks.scale                   (two cores: about 20 minutes)

Every federation has as many images a client, so that rounds are equally long; those are short, and
the pool changes often. Contestants take turns as in `step`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.configuration import Run, Shape, overrides_of, write_noise
from benchmarks.contest import Block, race
from benchmarks.ours import ours
from benchmarks.results import (
    Spread,
    Table,
    make_parser,
    megabytes,
    parse,
    positive,
    publish,
    ratio,
    ratios,
    seconds,
    spread,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    options = parse(_parser(), arguments)
    results = {}
    with TemporaryDirectory() as scratch:
        data = {number: _images(number, options, Path(scratch)) for number in options.clients}
        for state in options.states:
            runs = {
                f"{number:,}": (ours, _run(number, state, options, data[number]))
                for number in options.clients
            }
            blocks = race(
                runs,
                device=options.device,
                num_threads=options.threads,
                repeats=options.repeats,
                num_steps=options.steps,
            )
            results[state] = _result(blocks)
    publish("scale", options, [_table(results, options)], {"states": results})


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("Step time and memory against the number of clients.", repeats=7)
    add = parser.add_argument
    add("--clients", type=positive, nargs="+", default=[1000, 10_000, 100_000], help="N")
    add("--pool", type=positive, default=100, help="clients of a round, at most N")
    add("--states", choices=("stateless", "bank"), nargs="+", default=["stateless", "bank"])
    add("--images-per-client", type=positive, default=2, help="and so steps of a round")
    add("--image-size", type=positive, default=32, help="side, pixels")
    add("--width", type=positive, default=64, help="of ResNet-18; 64 is full size")
    add("--cut", type=positive, default=1, help="cut layer")
    add("--precision", choices=("fp32", "bf16"), default="fp32")
    add("--steps", type=positive, default=6, help="of a block; whole rounds, to be fair")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more of the configuration")
    return parser


def _images(num_clients: int, options: argparse.Namespace, scratch: Path) -> list[str]:
    """Write the images of so many clients."""
    return write_noise(
        scratch / str(num_clients),
        num_images=num_clients * options.images_per_client,
        image_size=options.image_size,
    )


def _run(num_clients: int, state: str, options: argparse.Namespace, data: list[str]) -> Run:
    shape = Shape(
        num_clients=num_clients,
        pool_size=options.pool,
        cut_layer=options.cut,
        width=options.width,
        steps_per_block=options.steps,
        client_state=state,
    )
    # One sync a round for all; the published rule would give small federations more.
    overrides = (*overrides_of(shape, options, data), "clients.syncs_per_round=1")
    return Run(overrides, options.device)


def _result(blocks: dict[str, list[Block]]) -> dict[str, Any]:
    times = {number: [block.step_seconds for block in of] for number, of in blocks.items()}
    smallest = next(iter(times))
    peaks = {n: max(block.memory.own_bytes for block in of) for n, of in blocks.items()}
    return {
        "blocks": {number: [block.plain() for block in of] for number, of in blocks.items()},
        "step_seconds": {number: spread(of)._asdict() for number, of in times.items()},
        "time_ratio": {n: ratios(of, times[smallest])._asdict() for n, of in times.items()},
        "own_bytes": peaks,
        "memory_ratio": {number: peak / peaks[smallest] for number, peak in peaks.items()},
    }


def _table(results: dict[str, dict[str, Any]], options: argparse.Namespace) -> Table:
    columns = ["client state", "clients", "a step", "time, ratio", "memory", "memory, ratio"]
    rows = [
        [
            state,
            number,
            seconds(result["step_seconds"][number]["median"]),
            ratio(Spread(**result["time_ratio"][number])),
            megabytes(result["own_bytes"][number]),
            f"{result['memory_ratio'][number]:.3g}",
        ]
        for state, result in results.items()
        for number in result["blocks"]
    ]
    notes = [
        f"Pool of {options.pool}, {options.images_per_client} images a client, a pool's change and "
        "a sync each time they are through. Ratios are to the first number of clients. Memory is "
        "the peak of a process, PyTorch included, without pages of files; those of the mapped "
        "images grow with the images that a run has read. On a GPU it is the allocator's.",
    ]
    return Table("Step time and memory against the number of clients", columns, rows, notes)


if __name__ == "__main__":
    main()
