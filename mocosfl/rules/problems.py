"""What rules yield, a line for each problem, and the one error that holds the lines."""

from collections.abc import Iterable, Iterator


def refuse(problems: Iterable[str]) -> None:
    """Raise all problems at once.

    Raises:
        ValueError: there are any; names each, one a line.
    """
    lines = list(problems)
    if lines:
        raise ValueError("\n".join(lines))


def unknown(values: Iterable[tuple[str, object, Iterable[object]]]) -> Iterator[str]:
    """Yield a line for each (key, value, known values) whose value is not known."""
    for key, value, known in values:
        names = list(known)
        if value not in names:
            yield f"{key}={value}: unknown; choose one of {', '.join(map(str, names))}"


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


def not_from_0_to_1(values: Iterable[tuple[str, float]]) -> Iterator[str]:
    """Yield a line for each (key, value) below 0 or above 1."""
    for key, value in values:
        if not 0 <= value <= 1:
            yield f"{key}={value}: must be from 0 to 1"


def not_within_0_and_1(values: Iterable[tuple[str, float]]) -> Iterator[str]:
    """Yield a line for each (key, value) that is not above 0 and below 1."""
    for key, value in values:
        if not 0 < value < 1:
            yield f"{key}={value}: must be above 0 and below 1"


def not_up_to_1(values: Iterable[tuple[str, float]]) -> Iterator[str]:
    """Yield a line for each (key, value) that is not above 0 and at most 1."""
    for key, value in values:
        if not 0 < value <= 1:
            yield f"{key}={value}: must be above 0 and at most 1"


def not_below_1(values: Iterable[tuple[str, float]]) -> Iterator[str]:
    """Yield a line for each (key, value) below 0, or not below 1."""
    for key, value in values:
        if not 0 <= value < 1:
            yield f"{key}={value}: must be from 0 to below 1"
