"""All overhead figures of a run: computed here, printed and written as `overhead.json`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mocosfl.config import Config
from mocosfl.data.round_plan import sync_steps
from mocosfl.overhead.compute import ClientMacs, client_macs, server_macs
from mocosfl.overhead.memory import (
    CountedMemory,
    MeasuredMemory,
    count_memory,
    measure_memory,
)
from mocosfl.overhead.network import ClientKind, Network, build_network, client_kinds
from mocosfl.overhead.traffic import Rates, Shares, Traffic, is_central, rates, shares_of, traffic
from mocosfl.plan import Plan, make_plan

MEGABYTE = 2**20  # the papers' unit


@dataclass(frozen=True)
class ClientOverhead:
    """Figures of one client of a kind; bytes and MACs of a run are expected ones."""

    kind: ClientKind
    rates: Rates
    traffic: Traffic
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
    server_macs: int  # a step
    remarks: list[str]

    def mean(self, name: str) -> float:
        """Return a field of `Traffic`, the mean over the clients of all kinds."""
        number = sum(client.kind.number for client in self.clients)
        total: float = sum(getattr(c.traffic, name) * c.kind.number for c in self.clients)
        return total / number


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
    if num_steps is None:
        max_steps = config.trainer.max_steps
        num_steps = plan.num_steps if max_steps == -1 else min(max_steps, plan.num_steps)
    shares = shares_of(rounds_by_mode)
    num_syncs = _num_syncs(config, plan, num_steps)
    return Overhead(
        images_from=images_from,
        images_per_client=plan.images_per_client,
        num_steps=num_steps,
        num_syncs=num_syncs,
        participation=plan.pool_size / config.clients.num_clients,
        clients=[
            _client(config, kind, network, plan=plan, steps=num_steps, syncs=num_syncs, of=shares)
            for kind in client_kinds(config)
        ],
        server_macs=server_macs(config, network, plan.rows_per_step),
        remarks=list(_remarks(config, rounds_by_mode)),
    )


def _num_syncs(config: Config, plan: Plan, num_steps: int) -> int:
    rounds, rest = divmod(num_steps, plan.steps_per_round)
    due = sync_steps(plan.steps_per_round, config.clients.syncs_per_round)
    return rounds * plan.syncs_per_round + int(due[:rest].sum())


def _client(
    config: Config,
    kind: ClientKind,
    network: Network,
    *,
    plan: Plan,
    steps: int,
    syncs: int,
    of: Shares,
) -> ClientOverhead:
    part = plan.pool_size / config.clients.num_clients
    rate = rates(config, network, kind.batch_size)
    macs = client_macs(config, network, kind.batch_size)
    measured = (
        MeasuredMemory(None, "one machine does it all")
        if is_central(config)
        else measure_memory(config, kind.batch_size)
    )
    present = 1 - config.clients.dropout_probability
    return ClientOverhead(
        kind=kind,
        rates=rate,
        traffic=traffic(config, rate, steps=steps * part, syncs=syncs * part, shares=of),
        macs=macs,
        # In mode B heads run forward, in C not at all; what B saves is not taken off.
        run_macs=macs.counted * steps * part * present * of.uploads,
        counted_memory=count_memory(config, network, kind.batch_size),
        measured_memory=measured,
    )


def _remarks(config: Config, rounds_by_mode: Mapping[str, int] | None) -> list[str]:
    remarks = []
    if is_central(config):
        remarks.append("one machine holds all images: nothing travels")
    if config.clients.dropout_probability > 0:
        remarks.append(
            f"clients.dropout_probability={config.clients.dropout_probability}: smashed data and "
            "MACs are expected values"
        )
    if config.saving.enabled and rounds_by_mode is None:
        remarks.append("saving.enabled=true: the most it can be, as if no round saved anything")
    if config.saving.enabled and rounds_by_mode is not None:
        spent = ", ".join(f"{mode} {number}" for mode, number in sorted(rounds_by_mode.items()))
        remarks.append(f"rounds in each mode of saving: {spent}")
    return remarks


def to_json(config: Config, overhead: Overhead) -> str:
    """Return the figures as JSON text; bytes, MACs (1 MAC = 2 FLOPs), steps."""
    values: dict[str, Any] = asdict(overhead)
    values["method"] = config.method.name
    for written, client in zip(values["clients"], overhead.clients, strict=True):
        for name in ("kind", "rates", "traffic", "macs", "counted_memory", "measured_memory"):
            written[name] = getattr(client, name)._asdict()
        written["counted_memory"]["total"] = client.counted_memory.total
    values["mean_client"] = {
        "up_bytes": overhead.mean("up"),
        "down_bytes": overhead.mean("down"),
        "paper_bytes": overhead.mean("paper_weights") + overhead.mean("paper_smashed"),
    }
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


def paper_megabytes(sent: Traffic) -> str:
    """Return a row of the paper's table 1: weights + smashed data, MB; what is 0 is left out."""
    parts = [part / MEGABYTE for part in (sent.paper_weights, sent.paper_smashed) if part]
    return " + ".join(f"{part:.1f}".removesuffix(".0") for part in parts) or "0"


def _mb(num_bytes: float) -> str:
    return f"{num_bytes / MEGABYTE:,.2f}"


def _short(number: float) -> str:
    return f"{number:,.1f}".removesuffix(".0")
