"""The plan as text for the terminal and `plan.txt`."""

from mocosfl.config.choices import Averaging, PartitionKind, TaressflMode
from mocosfl.config.derived import (
    client_kinds,
    edge_settings,
    is_central,
    is_expert,
    is_frozen,
    is_supervised,
    is_whole_network,
    num_remote,
    part_batch_sizes,
    queue_shape,
    smashed_precision,
)
from mocosfl.config.schema import Config
from mocosfl.overhead.plan import Plan
from mocosfl.system.units import megabytes


def describe_plan(config: Config, plan: Plan) -> str:
    """Return the plan as text for the terminal and `plan.txt`."""
    c, least = config.clients, plan.images_per_client
    max_steps = config.trainer.max_steps
    capped = f", stopping after {max_steps:,}" if 0 < max_steps < plan.num_steps else ""
    last = "classifier" if is_supervised(config) else "projector"
    lines = [
        ("method", f"{config.method.name} on {config.dataset.name}, seed {config.seed}"),
        ("network", f"{config.backbone.name}, width {config.backbone.width}, {_cut(config)}"),
        ("partition", _describe_partition(config)),
        ("clients", f"{c.num_clients:,}, pool of {plan.pool_size:,} a round "
                    f"({c.client_state.name})"),
        ("images a client", f"{least[0]:,} to {least[2]:,}, mean {least[1]:,.1f}"),
        ("batch", f"{_batches(config)}, {plan.rows_per_step:,} rows a step on the server"),
        ("queue", f"{_queues(config)}, {plan.keys_per_step:,} new a step"),
        ("rounds", f"{c.num_rounds:,} of {plan.steps_per_round:,} steps = {plan.num_steps:,} steps"
                   + capped),
        ("syncs", f"{plan.syncs_per_round:,} a round = {plan.num_syncs:,} sync events"
                  + _averaging(config)),
        ("processes", _processes(config, plan)),
        ("edge", _edge(config)),
        ("missing", f"each client misses a step with probability {c.dropout_probability}"),
        ("saving", f"from round {config.saving.warmup_rounds} on, where the loss falls by less "
                   f"than {config.saving.loss_threshold} nats; "
                   f"{megabytes(plan.saving_bytes)} on disk for a round that is replayed"),
        ("smashed", f"{' x '.join(map(str, plan.smashed_shape or ()))} an image"),
        ("parameters", f"head {plan.head_parameters:,}, trunk {plan.trunk_parameters:,}, "
                       f"{last} {plan.projector_parameters:,}"),
        ("traffic", _describe_traffic(config, plan)),
        ("taressfl", _taressfl(config)),
        ("attackers", f"{config.taressfl.decoder}, {megabytes(plan.attacker_bytes)}"),
        ("client bank", megabytes(plan.bank_bytes)),
    ]  # fmt: skip
    # Lines that do not apply to the method are left out.
    absent = {
        "queue": is_supervised(config),
        "smashed": plan.smashed_shape is None,
        "syncs": is_central(config) or is_frozen(config),
        "processes": config.trainer.devices == 1,
        "edge": num_remote(config) == 0,
        "missing": c.dropout_probability == 0,
        "saving": not config.saving.enabled,
        "taressfl": config.taressfl.mode is TaressflMode.off,
        "attackers": plan.attacker_bytes == 0,
        # An expert is one head in one place.
        **dict.fromkeys(("partition", "clients", "images a client"), is_expert(config)),
    }
    shown = [(name, text) for name, text in lines if not absent.get(name, False)]
    return "\n".join(f"{name:<16} {text}" for name, text in shown)


def _cut(config: Config) -> str:
    split = config.split
    if is_whole_network(config):
        return "whole on each client"
    pair = split.bottleneck_channels
    bottleneck = f", bottleneck C{pair}S{split.bottleneck_stride}" if pair else ""
    return f"cut {split.cut_layer}{bottleneck}"


def _processes(config: Config, plan: Plan) -> str:
    number = config.trainer.devices
    least, more = divmod(plan.pool_size, number)
    each = f"{least}" if more == 0 else f"{least} or {least + 1}"
    return f"{number}, each with {each} clients of the pool"


def _edge(config: Config) -> str:
    number = num_remote(config)
    if number == 0:
        return ""
    edge, others = edge_settings(config), config.clients.num_clients - number
    simulated = f", {others:,} simulated" if others else ""
    in_clear = ", in the clear" if edge.certificates is None else ""
    return (
        f"{number:,} remote clients{simulated}; listens on {edge.listen}{in_clear}, smashed "
        f"data in {smashed_precision(config)}"
    )


def _taressfl(config: Config) -> str:
    t = config.taressfl
    penalty = f"alpha {t.alpha:g}, target SSIM {t.target_ssim:g}"
    if is_expert(config):
        assert t.auxiliary is not None
        rows = dict(zip(("target", "auxiliary")[-len(part_batch_sizes(config)) :],
                        part_batch_sizes(config).tolist(), strict=True))  # fmt: skip
        batch = " + ".join(f"{number} {part}" for part, number in rows.items())
        return (
            f"expert on {100 * t.target_fraction:g} % of {config.dataset.name} and "
            f"{t.auxiliary.name}, {batch} rows; {penalty}"
        )
    start = f"from {t.expert}" if t.expert else "from random weights"
    frozen = "frozen heads " if t.mode is TaressflMode.on else ""
    return f"{t.mode.name}: {frozen}{start}" + ("" if frozen else f"; {penalty}")


def _queues(config: Config) -> str:
    number, length = queue_shape(config)
    return f"{length:,} keys" if number == 1 else f"{number:,} private ones of {length:,} keys"


def _averaging(config: Config) -> str:
    averaging = config.averaging
    return {
        Averaging.mean: "",
        Averaging.by_images: ", averaged by images",
        Averaging.divergence_aware: ", divergence-aware with strength "
        f"{averaging.divergence_strength}",
    }[averaging.kind]


def _batches(config: Config) -> str:
    kinds = client_kinds(config)
    if len(kinds) == 1:
        return f"{kinds[0].batch_size} a client"
    return ", ".join(f"{kind.batch_size} each of {kind.number:,} {kind.name}" for kind in kinds)


def _describe_traffic(config: Config, plan: Plan) -> str:
    if is_central(config):
        return "none, one machine holds all images"
    return (
        f"{megabytes(plan.up_bytes)} up, {megabytes(plan.down_bytes)} down a client and round"
        + (" (a poor one)" if len(client_kinds(config)) > 1 else "")
    )


def _describe_partition(config: Config) -> str:
    p = config.partition
    least = f"alpha {p.alpha}, at least {p.min_images} images a client"
    detail = {
        PartitionKind.iid: "random equal parts",
        PartitionKind.shards: f"{p.classes_per_client} of {config.dataset.num_classes} classes "
        "a client",
        PartitionKind.dirichlet: least,
        PartitionKind.quantity_skew: least,
        PartitionKind.file: f"as in {p.path}",
    }
    return f"{p.kind.name}: {detail[p.kind]}"
