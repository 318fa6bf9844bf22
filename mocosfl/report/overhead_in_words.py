"""What overhead.json says, in words."""

from typing import Any

from mocosfl.system.units import MEGABYTE, megabytes


def overhead_facts(overhead: dict[str, Any]) -> list[tuple[str, str]]:
    """Return name and words of each figure.

    Args:
        overhead: content of overhead.json.

    Raises:
        KeyError, TypeError: it is not of that form.
    """
    steps, part = overhead["num_steps"], overhead["participation"]
    facts = [
        (
            "Counted over",
            f"{steps:,} steps and {overhead['num_syncs']:,} syncs; a client takes part in "
            f"{100 * part:.3g} % of them",
        )
    ]
    clients = overhead["clients"]
    for client in clients:
        if len(clients) > 1:
            kind = client["kind"]
            words = f"{kind['number']:,} clients, batch of {kind['batch_size']:,}"
            facts.append((f"Clients: {kind['name']}", words))
        facts += _client_facts(client)
    server = overhead["server_macs"]
    all_in_all = f"{_short(server)} MACs a step, {_short(server * steps)} in all"
    facts.append(("Server computes", all_in_all))
    return facts + [("Note", remark) for remark in overhead["remarks"]]


def _client_facts(client: dict[str, Any]) -> list[tuple[str, str]]:
    rates, sent, macs = client["rates"], client["traffic"], client["macs"]
    counted, measured = client["counted_memory"]["total"], client["measured_memory"]
    peak = (
        f"not measured ({measured['why_not']})"
        if measured["peak_bytes"] is None
        else f"{megabytes(measured['peak_bytes'])} at the peak, measured"
    )
    paper = sent["paper_weights"] + sent["paper_smashed"]
    return [
        (
            "A client sends",
            f"{megabytes(sent['up'])} in the whole run: {size(rates['step_up'])} a step, "
            f"{size(rates['sync'])} a sync",
        ),
        (
            "It receives",
            f"{megabytes(sent['down'])}: {size(rates['step_down'])} a step, "
            f"{size(rates['sync'])} a sync",
        ),
        (
            "As the paper counts",
            f"{megabytes(paper)}: {_paper_words(rates)}",
        ),
        (
            "It computes",
            f"{_short(macs['counted'])} MACs a step, {_short(client['run_macs'])} in all "
            "(1 MAC is 2 FLOPs)",
        ),
        ("Its memory", f"{megabytes(counted)} counted; {peak}"),
    ]


def _paper_words(rates: dict[str, Any]) -> str:
    """Return what the paper counts of what a client exchanges."""
    # No gradient comes down to a head that is frozen, so its smashed data cross the cut once.
    times = "twice" if rates["step_down"] else "once"
    counted = {
        "weights once a sync": rates["paper_sync"],
        f"what crosses the cut {times} a sample": rates["paper_step"],
    }
    return (
        ", ".join(words for words, num_bytes in counted.items() if num_bytes) or "nothing travels"
    )


def _short(number: float) -> str:
    """Return a large number with three digits and a word."""
    for unit, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= unit:
            return f"{number / unit:,.3g} {word}"
    return f"{number:,.0f}"


def size(num_bytes: float) -> str:
    """Return bytes in the unit that suits them."""
    if num_bytes >= MEGABYTE:
        return megabytes(num_bytes)
    return f"{num_bytes / 1024:,.1f} kB" if num_bytes >= 1024 else f"{num_bytes:,.0f} bytes"
