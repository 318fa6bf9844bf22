"""Seconds a step and its parts, against a loop over clients and against central training.

    python -m benchmarks.step                    (synthetic images, two cores: about 4 hours)
    python -m benchmarks.step --width 8 --repeats 2 --cuts 1 --pools 100

Every case is a race of its own: the contestants' processes take turns, block by block.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmarks.central import central, shared
from benchmarks.configuration import (
    Run,
    Shape,
    compose,
    overrides_of,
    real_images,
    write_noise,
)
from benchmarks.contest import Block, Contestant, race
from benchmarks.loop import loop
from benchmarks.ours import ours, ours_in_parts
from benchmarks.parts import PARTS, REST
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
from mocosfl.data.round_plan import sync_steps

CONTESTANTS: dict[str, Contestant] = {
    "ours": ours,
    "loop": loop,
    "central": central,
    "shared": shared,
}
CUT_OF_POOLS, POOL_OF_CUTS = 1, 100
CIFAR10_IMAGES = 50_000


class Case(NamedTuple):
    """What a race is about."""

    cut_layer: int
    pool_size: int
    precision: str  # of all but the loop, which is fp32


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    options = parse(_parser(), arguments)
    with TemporaryDirectory() as scratch:
        if options.data_dir is None:
            images = options.images
            data = write_noise(Path(scratch), num_images=images, image_size=options.image_size)
        else:
            images, data = CIFAR10_IMAGES, real_images(options.data_dir)
        cases = _cases(options)
        _check(cases, options, images)
        results = [_measure(case, options, data, images) for case in cases]
    publish("step", options, [*_race_tables(results), _parts_table(results)], {"cases": results})


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("Seconds a training step, against a loop and central MoCo.", repeats=5)
    add = parser.add_argument
    add("--width", type=positive, default=64, help="of ResNet-18; 64 is full size")
    add("--image-size", type=positive, default=32, help="side of synthetic images, pixels")
    add("--cuts", type=positive, nargs="*", default=[1, 2, 4], help=f"pool of {POOL_OF_CUTS}")
    add("--pools", type=positive, nargs="*", default=[10, 100, 1000], help=f"cut {CUT_OF_POOLS}")
    add("--clients", type=positive, default=None, help="in all; None: as many as the pool")
    add("--precision", choices=("fp32", "bf16"), nargs="+", default=["fp32", "bf16"])
    add("--contestants", choices=CONTESTANTS, nargs="+", default=list(CONTESTANTS))
    add("--steps", type=positive, default=5, help="of a block")
    add("--warmup", type=positive, default=1, help="blocks before the first that counts")
    add("--images", type=positive, default=CIFAR10_IMAGES, help="synthetic training images")
    add("--data-dir", type=Path, default=None, help="with CIFAR-10's cache; None: synthetic images")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more of the configuration")
    return parser


def _cases(options: argparse.Namespace) -> list[Case]:
    sizes = [(cut, POOL_OF_CUTS) for cut in options.cuts]
    sizes += [(CUT_OF_POOLS, pool) for pool in options.pools]
    return [
        Case(cut, pool, precision)
        for cut, pool in dict.fromkeys(sizes)  # each once, in this order
        for precision in options.precision
    ]


def _num_clients(case: Case, options: argparse.Namespace) -> int:
    return options.clients or case.pool_size


def _check(cases: Sequence[Case], options: argparse.Namespace, num_images: int) -> None:
    """Refuse rounds that do not end with a block: blocks would differ in the views they make."""
    for case in cases:
        steps = num_images // _num_clients(case, options)
        if steps == 0 or steps % options.steps:
            raise ValueError(
                f"--steps={options.steps}: {num_images} images of {_num_clients(case, options)} "
                f"clients make a round of {steps} steps; choose --steps or --images so that the "
                "one divides the other"
            )


def _measure(
    case: Case, options: argparse.Namespace, data: list[str], num_images: int
) -> dict[str, Any]:
    """Run a case's race, and then the run that looks at the parts of ours."""
    run = Run(_overrides(case, options, data), options.device)
    common: dict[str, Any] = {"device": options.device, "num_threads": options.threads}
    common |= {"repeats": options.repeats, "num_steps": options.steps}
    chosen = {name: (CONTESTANTS[name], run) for name in options.contestants}
    blocks = race(chosen, **common, warmup_blocks=options.warmup)
    parts: list[Block] = []
    if "ours" in chosen:
        often = run._replace(overrides=(*run.overrides, "clients.syncs_per_round=1000000"))
        parts = race({"parts": (ours_in_parts, often)}, **common)["parts"]
    steps = num_images // _num_clients(case, options)
    syncs = int(sync_steps(steps, compose(run.overrides).clients.syncs_per_round).sum())
    return {
        **case._asdict(),
        "num_clients": _num_clients(case, options),
        "blocks": {name: [block.plain() for block in of] for name, of in blocks.items()},
        "step_seconds": {n: _spread(of)._asdict() for n, of in blocks.items()},
        "ours_against": {n: r._asdict() for n, r in _against(blocks).items()},
        "parts": [block.plain() for block in parts],
        "syncs_per_step": syncs / steps,  # of the run; in `parts` there is one behind each step
    }


def _overrides(case: Case, options: argparse.Namespace, data: list[str]) -> tuple[str, ...]:
    settings = argparse.Namespace(**vars(options))
    settings.precision = case.precision
    shape = Shape(
        num_clients=_num_clients(case, options),
        pool_size=case.pool_size,
        cut_layer=case.cut_layer,
        width=options.width,
        steps_per_block=options.steps,
    )
    return overrides_of(shape, settings, data)


def _spread(blocks: Sequence[Block]) -> Spread:
    return spread([block.step_seconds for block in blocks])


def _against(blocks: dict[str, list[Block]]) -> dict[str, Spread]:
    """Return how many times longer than `ours` each takes; of the bounds, ours against them."""
    if "ours" not in blocks:
        return {}
    times = {name: [block.step_seconds for block in of] for name, of in blocks.items()}
    own = times.pop("ours")
    return {
        name: ratios(other, own) if name == "loop" else ratios(own, other)
        for name, other in times.items()
    }


def _race_tables(results: Sequence[dict[str, Any]]) -> list[Table]:
    columns = ["cut", "pool", "clients", "precision", "contestant", "a step", "quartiles"]
    columns += ["ratio", "memory"]
    rows = []
    for result in results:
        for name, blocks in result["blocks"].items():
            middle = Spread(**result["step_seconds"][name])
            against = result["ours_against"].get(name)
            rows.append(
                [
                    str(result["cut_layer"]),
                    f"{result['pool_size']:,}",
                    f"{result['num_clients']:,}",
                    "fp32" if name == "loop" else result["precision"],
                    name,
                    seconds(middle.median),
                    f"{seconds(middle.lower)} to {seconds(middle.upper)}",
                    "" if against is None else _ratio_words(name, Spread(**against)),
                    megabytes(max(block["own_bytes"] for block in blocks)),
                ]
            )
    notes = [
        "A step: the median of the rounds' blocks, with the quartiles of the blocks. Ratios: the "
        "median of the rounds' own ratios, with their quartiles in brackets. Memory: the peak "
        "of a process in a block, PyTorch included, without pages of files; on a GPU the "
        "allocator's.",
    ]
    return [Table("Seconds a step", columns, rows, notes)]


def _ratio_words(name: str, value: Spread) -> str:
    if name == "loop":
        return f"{ratio(value)} times as long as ours"
    return f"ours takes {ratio(value)} times as long"


def _parts_table(results: Sequence[dict[str, Any]]) -> Table:
    measured = [result for result in results if result["parts"]]
    heads = [f"cut {r['cut_layer']}, {r['pool_size']:,}, {r['precision']}" for r in measured]
    columns = [_part_medians(result) for result in measured]
    rows = [
        [name, *(f"{seconds(c[name])} ({c[name] / c['whole']:.0%})" for c in columns)]
        for name in (*PARTS, REST, "whole")
    ]
    notes = [
        "The parts are timed in a run of their own, whose clocks cost time too, and on a GPU "
        f"waits. `{REST}` is what is left of the whole. A sync is timed behind each step and "
        "counted as often as the run has one; the blocks above are short, and hold few or none.",
    ]
    return Table("Parts of a step of ours", ["part", *heads], rows, notes)


def _part_medians(result: dict[str, Any]) -> dict[str, float]:
    """Return the median seconds of each part; syncs as often as in the run."""
    blocks = result["parts"]
    parts = {name: spread([block["parts"][name] for block in blocks]).median for name in PARTS}
    whole = spread([block["step_seconds"] for block in blocks]).median
    rest = whole - sum(parts.values())
    parts["sync"] *= result["syncs_per_step"]
    return {**parts, REST: rest, "whole": rest + sum(parts.values())}


if __name__ == "__main__":
    main()
