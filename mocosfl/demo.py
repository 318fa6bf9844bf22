"""`make demo`: train the default run, probe the trained and the untrained encoder, compare."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mocosfl.runs.evaluation_folders import ProbeFolder
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.probe_names import LINEAR, semi_supervised_name

ROOT = Path(__file__).parent.parent
Results = dict[str, Any]


def accuracies(results: Results) -> dict[str, float]:
    """Return the rows of the table from a `results.json`, fractions."""
    probes, tenth = results["probes"], semi_supervised_name(0.1)
    return {
        "kNN": results["knn_top1"],
        "linear probe": probes[LINEAR.recorded]["final_top1"],
        tenth.title: probes[tenth.recorded]["final_top1"],
    }


def main(arguments: Sequence[str]) -> None:
    """Run the three commands that a user would, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m mocosfl.demo", description=__doc__)
    parser.parse_args(arguments)
    start = time.monotonic()
    folder = Path("multirun") / time.strftime("demo_%Y-%m-%d_%H-%M-%S")
    _run("train.py", f"hydra.run.dir={folder}")
    _run("linear_probe.py", f"checkpoint={folder}")
    _run("linear_probe.py", "checkpoint=none", f"run={folder}")
    run = RunFolder(folder)
    trained, untrained = _read(run.probe), _read(run.probe_untrained)
    print(f"\nDigits, top-1 on the test images{'':>6} untrained   trained")
    for name, before in untrained.items():
        print(f"  {name:<37} {100 * before:>7.2f}%  {100 * trained[name]:>7.2f}%")
    print(f"\nPictures: {folder}/pictures/ (partition, views, curves)")
    print(f"          {ProbeFolder(run.probe).per_class}")
    print(f"Took {time.monotonic() - start:.0f} s. Next: python train.py --help")
    if any(trained[name] <= before for name, before in untrained.items()):
        sys.exit("mocosfl: the trained encoder is not better than the untrained one")


def _run(*arguments: str) -> None:
    """Run one of our commands; end with its exit code if it fails."""
    print(f"$ python {' '.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def _read(folder: Path) -> dict[str, float]:
    return accuracies(json.loads((ROOT / ProbeFolder(folder).results).read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
