"""Seconds from a command to its printed plan, against importing what training needs.

    python -m benchmarks.until_plan              (two cores: about two minutes)

Each start is a fresh process. The baselines are processes that only import PyTorch, or PyTorch
Lightning, which a run needs once the plan is out. They take turns.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.machine import ROOT
from benchmarks.results import (
    Table,
    make_parser,
    parse,
    publish,
    ratio,
    ratios,
    seconds,
    spread,
)

LAST_LINE = "client bank"  # of the plan
BASELINES = {"import torch": "torch", "import pytorch_lightning": "pytorch_lightning"}
OURS = "train.py to its plan"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    parser = make_parser("Seconds until the plan is printed.", repeats=5)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides")
    options = parse(parser, arguments)
    found: dict[str, list[float]] = {name: [] for name in (OURS, *BASELINES)}
    with TemporaryDirectory() as scratch:
        until_plan(Path(scratch), options.set)  # fills the data set's cache and the disk's
        for _ in range(options.repeats):
            found[OURS].append(until_plan(Path(scratch), options.set))
            for name, module in BASELINES.items():
                found[name].append(_import(module))
    publish("until_plan", options, [_table(found)], {"seconds": found})


def until_plan(folder: Path, overrides: Sequence[str]) -> float:
    """Return the seconds from the start of a run to the last line of its plan; ends it there.

    Raises:
        RuntimeError: it ends without a plan.
    """
    command = [
        sys.executable, "train.py", f"output_dir={folder}", f"data_dir={folder}/data", "logger=csv",
        *overrides,
    ]  # fmt: skip
    start = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        assert run.stdout is not None
        said = []
        for line in run.stdout:
            said.append(line)
            if line.startswith(LAST_LINE):
                taken = time.perf_counter() - start
                run.kill()
                return taken
    raise RuntimeError(f"no plan was printed:\n{''.join(said)}")


def _import(module: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, check=True)
    return time.perf_counter() - start


def _table(found: dict[str, list[float]]) -> Table:
    rows = [
        [name, seconds(spread(values).median), ratio(ratios(found[OURS], values))]
        for name, values in found.items()
    ]
    notes = ["Medians of the repeats; ratios are of each round, with quartiles."]
    columns = ["process", "takes", "until the plan / this"]
    return Table("From the command to the printed plan", columns, rows, notes)


if __name__ == "__main__":
    main()
