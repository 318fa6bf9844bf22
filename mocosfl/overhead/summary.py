"""All overhead figures of a run: computed here, printed and written as `overhead.json`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mocosfl.config.derived import ClientKind, client_kinds, is_central, is_frozen, pool_size
from mocosfl.config.schema import Config
from mocosfl.data.round_plan import sync_steps
from mocosfl.overhead.compute import ClientMacs, client_macs, server_macs
from mocosfl.overhead.memory import CountedMemory, MeasuredMemory, count_memory, measure_memory
from mocosfl.overhead.network import Network, build_network
from mocosfl.overhead.plan import Plan, make_plan, steps_to_do
from mocosfl.overhead.traffic import (
    ClientTraffic,
    Rates,
    Shares,
    present_fraction,
    rates,
    shares_of,
    traffic,
)
from mocosfl.system.units import MEGABYTE


@dataclass(frozen=True)
class ClientOverhead:
    """Figures of one client of a kind; bytes and MACs of a run are expected ones."""

    kind: ClientKind
    rates: Rates
    traffic: ClientTraffic
    macs: ClientMacs  # a step
    run_macs: float
    counted_memory: CountedMemory
    measured_memory: MeasuredMemory


@dataclass(frozen=True)
class Overhead:
    """Figures of a run."""

    images_from: str  # where the images a client come from: the partition, or equal parts
    images_per_client: tuple[int, float, int]  # least, mean, most
    num_steps: int  # of the run, or as many as were done
    num_syncs: int
    participation: float  # fraction of the steps in which a client is in the pool
    clients: list[ClientOverhead]  # by kind
    server_macs: int  # a step; expected, where clients miss some
    remarks: list[str]


def compute_overhead(
    config: Config,
    counts: npt.NDArray[np.int64],
    *,
    images_from: str,
    num_steps: int | None = None,
    rounds_by_mode: Mapping[str, int] | None = None,
) -> Overhead:
    """Compute all figures.

    Args:
        config: a valid configuration.
        counts: (N,) images of each client.
        images_from: where the counts come from, in words.
        num_steps: steps done; None: all that trainer.max_steps and the rounds allow.
        rounds_by_mode: rounds spent with all traffic (A), uploads alone (B), none (C), where
            saving.enabled; None: not known, all in A.

    Raises:
        ValueError: rounds_by_mode is not of that form.
    """
    plan, network = make_plan(config, counts), build_network(config)
    shares = shares_of(rounds_by_mode)
    steps = steps_to_do(config, plan) if num_steps is None else num_steps
    return Overhead(
        images_from=images_from,
        images_per_client=plan.images_per_client,
        num_steps=steps,
        num_syncs=_num_syncs(config, plan, steps),
        participation=plan.pool_size / config.clients.num_clients,
        clients=[
            _client(config, network, sent, steps=steps * shares.uploads)
            for sent in _sent(config, plan, network, steps=steps, shares=shares)
        ],
        server_macs=round(
            server_macs(config, network, plan.rows_per_step) * present_fraction(config)
        ),
        remarks=list(_remarks(config, rounds_by_mode)),
    )


def compute_bytes(
    config: Config, counts: npt.NDArray[np.int64], *, num_steps: int
) -> dict[str, float]:
    """Return the bytes of the mean client alone, as `mean_client` in overhead.json.

    Args:
        config: a valid configuration.
        counts: (N,) images of each client.
        num_steps: steps done.
    """
    plan, network = make_plan(config, counts), build_network(config)
    return mean_bytes(_sent(config, plan, network, steps=num_steps, shares=shares_of(None)))


class Sent(NamedTuple):
    """What a client of a kind sends and receives."""

    kind: ClientKind
    rates: Rates
    traffic: ClientTraffic


def _sent(
    config: Config, plan: Plan, network: Network, *, steps: int, shares: Shares
) -> list[Sent]:
    part = plan.pool_size / config.clients.num_clients
    syncs = _num_syncs(config, plan, steps)
    sent = []
    for kind in client_kinds(config):
        rate = rates(config, network, kind.batch_size)
        total = traffic(config, rate, steps=steps * part, syncs=syncs * part, shares=shares)
        sent.append(Sent(kind, rate, total))
    return sent


def mean_bytes(clients: Sequence[Sent | ClientOverhead]) -> dict[str, float]:
    """Return up_bytes, down_bytes and paper_bytes, the mean over the clients of all kinds."""
    total = sum(client.kind.number for client in clients)

    def mean(*fields: str) -> float:
        sent: float = sum(
            getattr(client.traffic, field) * client.kind.number / total
            for client in clients
            for field in fields
        )
        return sent

    return {
        "up_bytes": mean("up"),
        "down_bytes": mean("down"),
        "paper_bytes": mean("paper_weights", "paper_smashed"),
    }


def _num_syncs(config: Config, plan: Plan, num_steps: int) -> int:
    if is_central(config) or is_frozen(config):
        return 0  # nothing is averaged, or all heads stay equal
    rounds, rest = divmod(num_steps, plan.steps_per_round)
    due = sync_steps(plan.steps_per_round, config.clients.syncs_per_round)
    return rounds * plan.syncs_per_round + int(due[:rest].sum())


def _client(config: Config, network: Network, sent: Sent, *, steps: float) -> ClientOverhead:
    batch_size = sent.kind.batch_size
    macs = client_macs(config, network, batch_size)
    part = pool_size(config) / config.clients.num_clients
    present = part * present_fraction(config)
    measured = (
        MeasuredMemory(None, "one machine does it all")
        if is_central(config)
        else measure_memory(config, batch_size)
    )
    return ClientOverhead(
        *sent,
        macs=macs,
        # Rounds without traffic (C) cost a client nothing; what uploads alone (B) save is not
        # taken off.
        run_macs=macs.counted * steps * present,
        counted_memory=count_memory(config, network, batch_size),
        measured_memory=measured,
    )


def _remarks(config: Config, rounds_by_mode: Mapping[str, int] | None) -> Iterator[str]:
    """Yield what a reader of the figures must know."""
    dropout = config.clients.dropout_probability
    if is_central(config):
        yield "one machine holds all images: nothing travels"
    if dropout > 0:
        yield f"clients.dropout_probability={dropout}: smashed data and MACs are expected values"
    if config.saving.enabled and rounds_by_mode is None:
        yield "saving.enabled=true: the most it can be, as if no round saved anything"
    if config.saving.enabled and rounds_by_mode is not None:
        spent = ", ".join(f"{mode} {number}" for mode, number in sorted(rounds_by_mode.items()))
        yield f"rounds in each mode of saving: {spent}"


def overhead_json(config: Config, overhead: Overhead) -> str:
    """Return the figures as JSON text; bytes, MACs (1 MAC = 2 FLOPs), steps."""
    values: dict[str, Any] = asdict(overhead)
    values["method"] = config.method.name
    for written, client in zip(values["clients"], overhead.clients, strict=True):
        for name in ("kind", "rates", "traffic", "macs", "counted_memory", "measured_memory"):
            written[name] = getattr(client, name)._asdict()
        written["counted_memory"]["total"] = client.counted_memory.total
    values["mean_client"] = mean_bytes(overhead.clients)
    return json.dumps(values, indent=2) + "\n"


def describe_overhead(config: Config, overhead: Overhead) -> str:
    """Return the figures as a table for the terminal."""
    least, mean, most = overhead.images_per_client
    same = least == most
    lines = [
        ("method", f"{config.method.name}, {overhead.num_steps:,} steps, {overhead.num_syncs:,} "
                   "syncs"),
        ("images a client", (f"{least:,}" if same else f"{least:,} to {most:,}, mean {mean:,.1f}")
                            + f" ({overhead.images_from})"),
        ("a client takes part", f"in {100 * overhead.participation:.3g} % of it: "
                                f"{_short(overhead.num_steps * overhead.participation)} steps, "
                                f"{_short(overhead.num_syncs * overhead.participation)} syncs"),
    ]  # fmt: skip
    for client in overhead.clients:
        if len(overhead.clients) > 1:
            lines.append((f"-- {client.kind.name}", f"{client.kind.number:,} clients, batch of "
                                                    f"{client.kind.batch_size}"))  # fmt: skip
        lines += _client_lines(client)
    server = overhead.server_macs
    lines.append(("server, MACs", f"{server:,} a step, {server * overhead.num_steps:.3g} in all"))
    lines += [("note", remark) for remark in overhead.remarks]
    return "\n".join(f"{name:<20} {text}" for name, text in lines)


def _client_lines(client: ClientOverhead) -> list[tuple[str, str]]:
    rate, sent, macs = client.rates, client.traffic, client.macs
    counted, measured = client.counted_memory, client.measured_memory
    peak = (
        f"not measured ({measured.why_not})"
        if measured.peak_bytes is None
        else f"{_mb(measured.peak_bytes)} MB measured"
    )
    return [
        ("bytes a step", f"{rate.step_up:,} up, {rate.step_down:,} down"),
        ("bytes a sync", f"{rate.sync:,} up, as many down"),
        ("true MB", f"{_mb(sent.up)} up + {_mb(sent.down)} down = {_mb(sent.up + sent.down)}"),
        ("paper's convention", f"{paper_megabytes(sent)} MB"),
        ("client, MACs", f"{macs.counted:,} a step, {client.run_macs:.3g} in all; "
                         f"paper's convention {macs.paper:,} a step"),
        ("client, memory", f"{_mb(counted.total)} MB counted (weights and copies "
                           f"{_mb(counted.total - counted.activations - counted.images)}, "
                           f"activations {_mb(counted.activations)}, images "
                           f"{_mb(counted.images)}); {peak}"),
    ]  # fmt: skip


def paper_megabytes(sent: ClientTraffic) -> str:
    """Return a row of the paper's table 1: weights + smashed data, MB; what is 0 is left out."""
    parts = [part / MEGABYTE for part in (sent.paper_weights, sent.paper_smashed) if part]
    # One decimal as in the paper, two digits where that would be 0.0.
    texts = [f"{part:.1f}".removesuffix(".0") if part >= 0.1 else f"{part:.2g}" for part in parts]
    return " + ".join(texts) or "0"


def _mb(num_bytes: float) -> str:
    return f"{num_bytes / MEGABYTE:,.2f}"


def _short(number: float) -> str:
    return f"{number:,.1f}".removesuffix(".0")
