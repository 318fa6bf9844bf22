"""Report on a run or a sweep: tables, pictures, and one page that holds all of it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mocosfl.report.bytes_so_far import with_overhead
from mocosfl.report.runs import find_runs
from mocosfl.report.table import counts
from mocosfl.report.write import write_report
from mocosfl.system.errors import user_errors
from mocosfl.system.files import check_writable


def main(arguments: Sequence[str]) -> None:
    """Report on the folder that the arguments name."""
    chosen = _parsed(arguments)
    root, output = chosen.folder, chosen.output or chosen.folder
    with user_errors():
        runs = find_runs(root)
        check_writable(output)
        runs = [with_overhead(run) for run in runs]
        files = write_report(runs, root.resolve().name, output)
    print(counts(runs))
    for problem in (problem for run in runs for problem in run.problems):
        print(f"not read: {problem}")
    print("report: " + ", ".join(map(str, files)))


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mocosfl.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="of a sweep, of one run, or of several sweeps")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the report; default: the folder"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
