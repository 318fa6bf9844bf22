"""Numbers below their bound, one line each."""

from collections.abc import Iterable, Iterator

MIN_IMAGE_SIZE = 8  # pixels


def too_small(values: Iterable[tuple[str, float, float]]) -> Iterator[str]:
    """Yield a line for each (key, value, bound) below its bound."""
    for key, value, bound in values:
        if not value >= bound:  # so that NaN fails too
            yield f"{key}={value}: must be at least {bound}"


def not_positive(values: Iterable[tuple[str, float]]) -> Iterator[str]:
    """Yield a line for each (key, value) that is not above 0."""
    for key, value in values:
        if not value > 0:
            yield f"{key}={value}: must be above 0"
