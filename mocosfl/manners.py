"""How the commands speak to the user."""

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf.errors import OmegaConfBaseException

log = logging.getLogger(__name__)

# OmegaConf's are about values that are missing, unknown or of a wrong type.
MISTAKES = (ValueError, OSError, OmegaConfBaseException)


def quote_choices(arguments: list[str]) -> list[str]:
    """Put quotes around the numbers in `clients=5,100`, so that Hydra takes them as names.

    Hydra reads a bare number as an integer and accepts only strings as a group's choice.

    Args:
        arguments: of the command line.
    """
    bare_number = re.compile(r"(?<![\w'\".])\d+(?![\w'\".])")
    return [
        bare_number.sub(r"'\g<0>'", argument) if argument.startswith("clients=") else argument
        for argument in arguments
    ]


def check_simulated(arguments: list[str]) -> list[str]:
    """Return arguments of a program that simulates its clients.

    Raises:
        ValueError: one of them is for the networked server.
    """
    for argument in arguments:
        if re.match(r"[+~]*edge[.=]", argument):
            raise ValueError(
                f"{argument}: this program simulates its clients; those that are other machines "
                "are the server's (python -m mocosfl.edge.server, docs/edge.md)"
            )
    return arguments


def setup_logging() -> None:
    """Quiet what the user cannot act on."""
    # Lightning's lines about devices and tips; our plan says what is used.
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.accelerators.cuda").setLevel(logging.WARNING)
    # Nor of how several processes meet.
    logging.getLogger("lightning_fabric.utilities.distributed").setLevel(logging.WARNING)
    # Steps come from memory; loader workers would not help.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # A short run has fewer steps than the logging interval; that is the user's choice.
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    # Lightning's own use of a deprecated part of torch.
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn the user's mistakes into a message and exit code 1, without a traceback.

    The traceback is logged at debug level; `hydra.verbose=true` shows it.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("\nmocosfl: interrupted\n")
        sys.exit(130)  # what a shell expects of Ctrl-C
    except Exception as error:
        if not is_mistake(error):
            raise
        log.debug("stopped", exc_info=True)
        sys.stderr.write(f"\nmocosfl: {words(error)}\n")
        sys.exit(1)


def is_mistake(error: Exception) -> bool:
    """Return whether an exception is told in its own words, without a traceback."""
    # Imported here: it needs torch, and --help does not.
    from mocosfl.stopped import TrainingStopped

    return isinstance(error, (*MISTAKES, TrainingStopped))


def words(error: Exception) -> str:
    """Return an error's message, without what OmegaConf wraps around ours in a resolver."""
    message = re.sub(r"^\w+ (raised )?while resolving interpolation: ", "", str(error))
    return message.split("\n    full_key: ")[0]
