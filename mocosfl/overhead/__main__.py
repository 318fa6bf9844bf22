"""What a configuration costs, without training: `python -m mocosfl.overhead --help`."""

import argparse
import sys
from pathlib import Path

from mocosfl.config.hydra_setup import composed
from mocosfl.system.errors import user_errors
from mocosfl.system.files import write_atomically

DESCRIPTION = """\
Bytes up and down, MACs and memory of a client, and the server's MACs, of the run that
`python train.py` with the same overrides would do. Needs no data and writes nothing but --json.

  python -m mocosfl.overhead experiment=table1_mocosfl_1
  python -m mocosfl.overhead dataset=cifar10 clients=100 split=cut2 --json overhead.json
"""


def main(arguments: list[str]) -> None:
    """Print the figures of the configuration that the arguments name."""
    chosen = _parsed(arguments)
    with user_errors():
        # Imported here, so that --help and typing errors do not wait for torch.
        from mocosfl.overhead.cohort import find_cohort
        from mocosfl.overhead.summary import compute_overhead, describe_overhead, overhead_json
        from mocosfl.rules.validate import validate

        config = composed(chosen.overrides)
        validate(config)  # whatever this machine has: figures of a GPU's run need none here
        cohort = find_cohort(config)
        overhead = compute_overhead(config, cohort.counts, images_from=cohort.source)
        print(describe_overhead(config, overhead))
        if chosen.json is not None:
            write_atomically(chosen.json, overhead_json(config, overhead))


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mocosfl.overhead",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        help="group=choice and group.key=value, as for train.py; "
        "callbacks.measure_client_memory=false leaves out the 5 s that a client is run for",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
