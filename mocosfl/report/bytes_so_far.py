"""Bytes of runs that have not come to the end, where they follow from what is there."""

from dataclasses import replace

from mocosfl.data.partition import Partition
from mocosfl.report.paths_in_words import shown_words
from mocosfl.report.runs import Run
from mocosfl.runs.folder import RunFolder


def with_overhead(run: Run) -> Run:
    """Fill in the bytes of a run that has not written its overhead.json, where they follow.

    They don't where `saving` lets rounds go without traffic: only the run itself counts those.
    """
    known = run.results.get("true_bytes") is not None
    if known or not run.settings or not run.steps or run.settings.get("saving.enabled"):
        return run
    try:
        values = _computed_bytes(RunFolder(run.folder), run.steps)
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        reason = shown_words(reason or type(error).__name__, run.folder)
        problem = f"{run.name}: its bytes don't follow from its files ({reason})"
        return replace(run, problems=(*run.problems, problem))
    return replace(run, results={**run.results, **values})


def _computed_bytes(folder: RunFolder, steps: int) -> dict[str, float]:
    # Imported only where a run needs it: torch takes seconds.
    from mocosfl.overhead.summary import compute_bytes
    from mocosfl.rules.validate import validate

    config, partition = folder.load_config(), Partition.load(folder.partition)
    validate(config)  # perhaps somebody has changed the file
    sent = compute_bytes(config, partition.counts, num_steps=steps)
    return {"true_bytes": sent["up_bytes"] + sent["down_bytes"], "paper_bytes": sent["paper_bytes"]}
