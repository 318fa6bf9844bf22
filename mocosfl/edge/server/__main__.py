"""The networked server: `python -m mocosfl.edge.server --help`.

The same program as train.py, whose clients, or some of them, are other machines (`edge=`).
"""

import signal
import sys
from typing import Any

from mocosfl.cli.sweep import Result
from mocosfl.cli.train import run
from mocosfl.config.command_line import quote_choices
from mocosfl.config.hydra_setup import hydra_command, in_sweep
from mocosfl.config.schema import Config
from mocosfl.edge.server.networked_deployment import NetworkedDeployment
from mocosfl.system.errors import user_errors


@hydra_command("edge_server")
def main(config: Config) -> Result:
    """Train, or go on with `resume=<run folder>`."""
    if in_sweep():
        with user_errors():
            raise ValueError("-m: a networked server is one run; sweep simulations with train.py")
    # Else Lightning waits for the end of the step, and a step waits for clients without end.
    signal.signal(signal.SIGTERM, _end)
    return run(config, NetworkedDeployment())


def _end(number: int, _: Any) -> None:
    """End as Ctrl-C does: the clients are told that the server will be back."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    with user_errors():
        sys.argv[1:] = quote_choices(sys.argv[1:])
    main()
