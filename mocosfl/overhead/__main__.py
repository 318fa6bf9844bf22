"""What a configuration costs, without training: `python -m mocosfl.overhead --help`."""

import argparse
import copy
import sys
from pathlib import Path
from typing import cast

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from mocosfl.config import Config
from mocosfl.manners import quote_choices, user_errors
from mocosfl.run_folder import write_atomically

CONF = Path(__file__).parents[2] / "conf"

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
        from mocosfl.overhead.summary import compute_overhead, describe_overhead, to_json
        from mocosfl.validate import validate

        config = composed(chosen.overrides)
        checked = copy.deepcopy(config)
        if checked.trainer.accelerator == "gpu":
            checked.trainer.accelerator = "auto"  # figures of a GPU's run need none here
        validate(checked)
        cohort = find_cohort(config)
        overhead = compute_overhead(config, cohort.counts, images_from=cohort.source)
        print(describe_overhead(config, overhead))
        if chosen.json is not None:
            write_atomically(chosen.json, to_json(config, overhead))


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


def composed(overrides: list[str]) -> Config:
    """Return the configuration that `train.py` would get; with `edge.*` the networked server.

    By hydra's compose function and not its decorator, which makes a run folder.

    Raises:
        ValueError: hydra refuses the overrides.
    """
    name = "edge_server" if any(o.startswith("edge.") for o in overrides) else "config"
    try:
        with initialize_config_dir(str(CONF), version_base="1.3", job_name="mocosfl"):
            return cast(Config, compose(name, quote_choices(overrides)))
    except HydraException as error:
        raise ValueError(str(error)) from error


if __name__ == "__main__":
    main(sys.argv[1:])
