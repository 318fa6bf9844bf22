"""Train an expert for TAResSFL: `python -m mocosfl.expert --help`.

The same program as train.py with other defaults (conf/expert.yaml): one head and one server in one
place, trained on a small part of the target's images and on auxiliary ones, with a simulated
attacker that the head learns to evade.
"""

import sys

from mocosfl.cli.sweep import Result, name_sweep
from mocosfl.cli.sweep_record import told_at_end
from mocosfl.cli.train import run
from mocosfl.config.command_line import check_simulated, quote_choices
from mocosfl.config.hydra_setup import hydra_command
from mocosfl.config.schema import Config
from mocosfl.system.errors import user_errors


@hydra_command("expert")
def main(config: Config) -> Result:
    """Train, or go on with `resume=<run folder>`; in a sweep, what the job's folder calls for."""
    return run(config)


if __name__ == "__main__":
    with user_errors():
        sys.argv[1:] = name_sweep(quote_choices(check_simulated(sys.argv[1:])))
    with told_at_end():
        main()
