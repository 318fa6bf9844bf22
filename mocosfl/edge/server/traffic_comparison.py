"""Bytes that really travelled, beside what `mocosfl.overhead` predicts."""

import json
from dataclasses import asdict
from typing import Any

from mocosfl.config.derived import batch_sizes
from mocosfl.config.schema import Config
from mocosfl.edge.server.traffic_ledger import Account, Ledger
from mocosfl.overhead.network import build_network
from mocosfl.overhead.traffic import Rates, rates
from mocosfl.system.units import megabytes


def predicted(account: Account, rates: Rates) -> tuple[int, int]:
    """Return the predicted bytes up and down of a client: of its tensors alone.

    Args:
        account: of the client; its steps and syncs count.
        rates: of a client with its batch size.
    """
    weights = account.syncs * rates.sync
    return account.steps * rates.step_up + weights, account.steps * rates.step_down + weights


def compare_traffic(config: Config, ledger: Ledger) -> dict[str, Any]:
    """Return measured and predicted bytes of each client, and in all, as plain values."""
    sizes, clients = batch_sizes(config), {}
    network = build_network(config)  # takes a second, whatever the number of clients
    for client, account in ledger.accounts.items():
        up, down = predicted(account, rates(config, network, int(sizes[client])))
        clients[str(client)] = {
            **asdict(account),
            "up": account.up,
            "down": account.down,
            "predicted_up": up,
            "predicted_down": down,
        }
    names = next(iter(clients.values()))
    total = {name: sum(values[name] for values in clients.values()) for name in names}
    return {"total": total, "clients": clients}


def traffic_json(comparison: dict[str, Any]) -> str:
    """Return the comparison as text for edge.json."""
    return json.dumps(comparison, indent=1) + "\n"


def describe_traffic(comparison: dict[str, Any]) -> str:
    """Return a few lines for the terminal."""
    total, number = comparison["total"], len(comparison["clients"])
    tensors_up = total["smashed_up"] + total["weights_up"]
    tensors_down = total["gradients_down"] + total["weights_down"]
    return "\n".join(
        [
            f"remote clients       {number:,}: {total['steps']:,} answers in time, "
            f"{total['late_steps']:,} late, {total['lost']:,} connections lost, "
            f"{total['refusals']:,} messages refused",
            f"up, all clients      {megabytes(total['up'])}: smashed data "
            f"{megabytes(total['smashed_up'])}, weights {megabytes(total['weights_up'])}, "
            f"all else {megabytes(total['other_up'])}",
            f"down, all clients    {megabytes(total['down'])}: gradients "
            f"{megabytes(total['gradients_down'])}, weights {megabytes(total['weights_down'])}, "
            f"heads to start from {megabytes(total['heads_down'])}, "
            f"all else {megabytes(total['other_down'])}",
            f"tensors in bytes     {tensors_up:,} up, {tensors_down:,} down; predicted "
            f"{total['predicted_up']:,} and {total['predicted_down']:,}",
        ]
    )
