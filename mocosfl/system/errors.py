"""What went wrong, and how a command says so: a message for a mistake, else a traceback."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

log = logging.getLogger(__name__)


class TrainingStopped(RuntimeError):
    """The run has failed and was stopped on purpose; the message says why and what to do."""


class Collapsed(TrainingStopped):
    """The embeddings tell nothing any more; `step` is where that was seen."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


# OmegaConf's are about values that are missing, unknown or of a wrong type.
MISTAKES = (ValueError, OSError, OmegaConfBaseException)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn the user's mistakes into a message and exit code 1, without a traceback.

    The traceback is logged at debug level; `hydra.verbose=true` shows it.
    """
    try:
        yield
    except KeyboardInterrupt:
        end_interrupted()
    except Exception as error:
        if not is_mistake(error):
            raise
        log.debug("stopped", exc_info=True)
        tell(words(error))
        sys.exit(1)


def tell(message: str) -> None:
    """Tell the user what went wrong."""
    sys.stderr.write(f"\nmocosfl: {message}\n")


def end_interrupted() -> NoReturn:
    """End the program after Ctrl-C."""
    tell("interrupted")
    sys.exit(130)  # what a shell expects


def is_mistake(error: Exception) -> bool:
    """Return whether an exception is told in its own words, without a traceback."""
    return isinstance(error, (*MISTAKES, TrainingStopped))


def words(error: BaseException) -> str:
    """Return an error's message, without what OmegaConf adds to it."""
    if isinstance(error, InterpolationResolutionError) and error.__context__ is not None:
        return words(error.__context__)  # of one of our resolvers, wrapped perhaps repeatedly
    if isinstance(error, OmegaConfBaseException):
        # OmegaConf puts key and type behind its own message, and keeps no copy without them.
        return str(error).partition(f"\n    full_key: {error.full_key}")[0]
    return str(error)
