"""What the trained probes are called: in files, in logs and on a page."""

from typing import NamedTuple


class ProbeName(NamedTuple):
    """The names of one probe."""

    recorded: str  # in `results.json` and on pictures
    logged: str  # of its curve; its accuracies are this with `_final` and `_best`
    title: str


LINEAR = ProbeName("linear", "probe/linear_top1", "linear")


def semi_supervised_name(label_fraction: float) -> ProbeName:
    """Return the names of the head that is trained on a fraction of the labels."""
    percent = f"{100 * label_fraction:g}"
    return ProbeName(
        f"semi-supervised {percent} %",
        f"probe/semi_{percent}_percent_top1",
        f"{percent} % of the labels",
    )
