"""The page: what it is made of, and its text.

All that is said stands in these values as plain text; the template escapes it. Only charts are
markup already.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


class KeyFigure(NamedTuple):
    """One of the best numbers, large at the top."""

    value: str
    name: str
    words: str = ""  # small, below


class Table(NamedTuple):
    """Rows of cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: str = ""  # below it


class Missing(NamedTuple):
    """What is not there, and what makes it."""

    words: str
    command: str = ""


class Figure(NamedTuple):
    """A chart or a picture with its caption."""

    title: str
    caption: str
    chart: Markup | None = None
    picture: str = ""  # data URI
    width: int = 0  # of the picture, pixels
    height: int = 0


class LegendEntry(NamedTuple):
    """A run in the legend of the overlaid curves."""

    label: str
    colour: str
    dashes: str  # of an SVG line; "" for a solid one
    anchor: str  # of the run's section


@dataclass(frozen=True)
class Part:
    """A section of the page or of a run."""

    title: str
    anchor: str
    words: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)  # name, value
    legend: list[LegendEntry] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    folded: list[tuple[str, str]] = field(default_factory=list)  # title, preformatted text
    missing: list[Missing] = field(default_factory=list)
    runs: list["RunPart"] = field(default_factory=list)

    @property
    def figures_by_kind(self) -> list[tuple[str, list[Figure]]]:
        """The charts, then the pictures; a kind of which there is none is left out."""
        charts = [figure for figure in self.figures if figure.chart is not None]
        pictures = [figure for figure in self.figures if figure.chart is None]
        kinds = [("charts", charts), ("pictures", pictures)]
        return [(kind, figures) for kind, figures in kinds if figures]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to say."""
        said = (self.words, self.facts, self.tables, self.figures, self.folded, self.missing)
        return not (any(said) or self.runs)


@dataclass(frozen=True)
class RunPart:
    """A run of a sweep, to be opened."""

    entry: LegendEntry
    name: str  # of its folder
    status: str
    words: str  # its results, in short
    parts: list[Part]


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    subtitle: str
    status: str  # of the run, or of the worst of a sweep
    status_words: str
    progress: float  # fraction of the steps that are done
    notes: list[str]  # the user's own, and what is wrong
    key_figures: list[KeyFigure]
    parts: list[Part]
    made: str  # when, and with what


def render(page: Page) -> str:
    """Return the page's HTML, with all that it shows inside."""
    environment = Environment(
        loader=PackageLoader("mocosfl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = count(1)
    environment.filters["numbered"] = lambda chart: _numbered(chart, next(numbers))
    return environment.get_template("page.html").render(page=page)


def _numbered(chart: Markup, number: int) -> Markup:
    """Return a chart whose ids no other chart of the page has.

    Those that a chart keeps, of marks and clips, are hashes of ten digits of what they stand for.
    """
    text = str(chart)  # of Markup, re.sub would escape what it puts in
    kept = r'( id="|href="#|url\(#)([mp][0-9a-f]{10})(?=["\)])'
    return Markup(re.sub(kept, rf"\1c{number}-\2", text))
