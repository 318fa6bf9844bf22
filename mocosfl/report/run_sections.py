"""The sections of one run: data, plan, overhead, curves; `evaluation_sections` has the others.

What a run has not written is named, with the command that writes it.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from mocosfl.config.identity import without_places
from mocosfl.report.charts import single
from mocosfl.report.curves import LoggedCurves, quantities, shared_axis
from mocosfl.report.embedded_pictures import Album
from mocosfl.report.evaluation_sections import attack_part, probe_part
from mocosfl.report.overhead_in_words import overhead_facts
from mocosfl.report.page_model import Figure, Missing, Part
from mocosfl.report.paths_in_words import shown_path, shown_words
from mocosfl.report.runs import Run
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.json_records import read_record
from mocosfl.runs.resuming import resume_command


def parts_of(run: Run, album: Album, *, anchor: str, problems: list[str]) -> list[Part]:
    """Return all sections of a run but its curves.

    Args:
        run: to show.
        album: for its pictures.
        anchor: what the names of its sections begin with.
        problems: files that can't be read are noted here.
    """
    builders: list[Callable[[Run, Album, str], Part]] = [
        probe_part, _data_part, _overhead_part, attack_part, _attacker_part, _plan_part,
    ]  # fmt: skip
    parts = []
    for build in builders:
        try:
            parts.append(build(run, album, anchor))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problems.append(f"{run.name}: {_name(build)} can't be shown ({error!r})")
    return parts


def _name(build: Callable[..., Part]) -> str:
    return build.__name__.strip("_").removesuffix("_part")


def curves_part(curves: LoggedCurves, *, anchor: str) -> Part:
    """Return a chart of each quantity of a run."""
    if not curves:
        return Part("Curves", anchor, missing=[Missing("Nothing has been logged yet.")])
    axis = shared_axis([curves])
    words = [
        "What is of single batches is noisy: faint are the values that were logged, strong their "
        "running mean."
    ]
    figures = [
        Figure(quantity.title, quantity.words, chart=single(quantity, axis, curves))
        for quantity in quantities([curves])
    ]
    return Part("Curves", anchor, words=words, figures=figures)


def going_on(run: Run) -> Missing | None:
    """Return how a run that has not finished is gone on with."""
    if run.status == "finished":
        return None
    if not RunFolder(run.folder).last.is_file():
        words = "It has no checkpoint to go on from: start it again, with the command it had."
        return Missing(words)
    command = resume_command(
        edge=any(key.startswith("edge.") for key in run.settings),
        expert=run.settings.get("taressfl.mode") == "expert",
        folder=shown_path(run.folder),
    )
    return Missing("Unless it is still running, it goes on from its last checkpoint:", command)


def _data_part(run: Run, album: Album, anchor: str) -> Part:
    folder = RunFolder(run.folder)
    figures = album.figure(
        folder.partition_picture,
        "Partition",
        "Who holds how many training images of which class, and how many images and classes the "
        "clients have.",
    ) + album.figure(
        folder.views_picture,
        "Views",
        "Images, and two random views of each, as the clients make them.",
    )
    missing = []
    if not (folder.partition_picture.is_file() or folder.views_picture.is_file()):
        missing.append(
            Missing("No pictures of the data: the run was made with callbacks.pictures=false.")
        )
    return Part("Data and views", f"{anchor}data", figures=figures, missing=missing)


def _overhead_part(run: Run, album: Album, anchor: str) -> Part:
    path, title = RunFolder(run.folder).overhead, "Overhead"
    if path.is_file():
        words = ["What the run costs a client. 1 MB is 2^20 bytes."]
        facts = overhead_facts(read_record(path))
        return Part(title, f"{anchor}overhead", words=words, facts=facts)
    missing = [Missing("overhead.json is written when the run has done its last step.")]
    return Part(title, f"{anchor}overhead", missing=missing)


def _attacker_part(run: Run, album: Album, anchor: str) -> Part:
    """Return what TAResSFL's simulated attackers saw, first and last."""
    pictures = list(RunFolder(run.folder).attacker_pictures.items())
    ends = dict([*pictures[:1], *pictures[-1:]])
    figures = [
        figure
        for number, file in ends.items()
        for figure in album.figure(
            file,
            f"After round {number:,}",
            "Views above what the simulated attacker, which trains along, makes of what is sent.",
        )
    ]
    return Part("TAResSFL: the simulated attacker", f"{anchor}attacker", figures=figures)


def _plan_part(run: Run, album: Album, anchor: str) -> Part:
    plan = RunFolder(run.folder).plan
    title = "Plan and settings"
    folded = [("All settings that shape the result", "\n".join(_settings(run.settings)))]
    if not run.settings:
        return Part(title, f"{anchor}plan", missing=[Missing("The run has no configuration.")])
    if not plan.is_file():
        missing = [Missing("plan.txt is missing.")]
        return Part(title, f"{anchor}plan", folded=folded, missing=missing)
    text = shown_words(plan.read_text(errors="replace"), run.folder, run.settings.values())
    facts = list(_plan_facts(text))
    return Part(title, f"{anchor}plan", facts=facts, folded=folded)


def _plan_facts(text: str) -> Iterator[tuple[str, str]]:
    """Yield the lines of plan.txt: a name, two spaces or more, then its words."""
    for line in text.splitlines():
        name, *words = re.split(" {2,}", line.strip(), maxsplit=1)
        if name:
            yield name, "".join(words)


def _settings(settings: dict[str, Any]) -> Iterator[str]:
    width = max(map(len, settings), default=0)
    for key, value in sorted(settings.items()):
        yield f"{key:<{width}}  {without_places(value)}"
