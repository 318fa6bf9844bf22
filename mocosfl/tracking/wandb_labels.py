"""By what a run is found among many in Weights & Biases: its name, group, tags and settings.

The settings are flat, with the names that the command line has (`clients`, `partition`, ...), so
that the runs table filters, groups and draws by them; the whole configuration hangs below `config`.
"""

from typing import Any, NamedTuple

from mocosfl.config.choices import Averaging, PartitionKind
from mocosfl.config.derived import num_remote, pool_size
from mocosfl.config.hydra_setup import chosen, in_sweep
from mocosfl.config.identity import cut_name, plain, without_data_dir, without_places
from mocosfl.config.schema import Config
from mocosfl.runs.folder import RunFolder

MAX_TAG = 64  # characters that W&B takes in a tag
# Where a run lies on a machine, and where it logs to: of no use in a table that others read.
_PLACES = ("run_dir", "output_dir", "data_dir", "sweep_name", "resume", "logger")
_PARTITION_KEYS = {  # what each partition reads of its group
    PartitionKind.shards: ("classes_per_client",),
    PartitionKind.dirichlet: ("alpha",),
    PartitionKind.quantity_skew: ("alpha",),
}

Setting = str | int | float | bool | None


class Labels(NamedTuple):
    """What a W&B run is found by."""

    name: str
    group: str | None  # the sweep; None: a run of its own
    tags: list[str]
    settings: dict[str, Any]


def label(config: Config, folder: RunFolder, run_id: str) -> Labels:
    """Return the labels of a run.

    Args:
        config: of the run.
        folder: of the run; its name, without the way to it, is one of the settings.
        run_id: W&B's; ends the name, so that runs with the same settings are told apart.
    """
    words = [*_nouns(config), f"n{config.clients.num_clients}", cut_name(config.split.cut_layer)]
    settings: dict[str, Any] = dict(flat_settings(config))
    settings |= {"folder": folder.path.name, "config": nested_settings(config)}
    return Labels("_".join([*words, run_id]), _group(config), _tags(config), settings)


def flat_settings(config: Config) -> dict[str, Setting]:
    """Return the settings to filter, group and draw by; None where a run has none."""
    split, clients, moco = config.split, config.clients, config.moco
    pair = split.bottleneck_channels
    return {
        "method": config.method.name,
        "dataset": config.dataset.name,
        "partition": config.partition.kind.name,
        **{key: getattr(config.partition, key) for key in _read(config)},
        "clients": clients.num_clients,
        "pool_size": pool_size(config),
        "batch_size": clients.batch_size,
        "rounds": clients.num_rounds,
        "syncs_per_round": clients.syncs_per_round,
        "dropout_probability": clients.dropout_probability,
        "rich_fraction": config.heterogeneity.rich_fraction,
        "averaging": config.averaging.kind.name,
        "divergence_strength": config.averaging.divergence_strength
        if config.averaging.kind is Averaging.divergence_aware
        else None,
        "saving": config.saving.enabled,
        "cut_layer": split.cut_layer,
        "bottleneck": f"C{pair}S{split.bottleneck_stride}" if pair else "none",
        "backbone": config.backbone.name,
        "width": config.backbone.width,
        "queue_length": moco.queue_length,
        "symmetric": moco.symmetric.name,
        "taressfl": config.taressfl.mode.name,
        "server_lr": config.optimizer.server_lr,
        "client_lr": config.optimizer.client_lr,
        "precision": config.trainer.precision,
        "processes": config.trainer.devices,
        "remote_clients": num_remote(config) > 0,
        "seed": config.seed,
        "experiment": chosen("experiment"),
    }


def nested_settings(config: Config) -> dict[str, Any]:
    """Return the whole configuration but for places on a machine; of a path the last part."""
    values = plain(config)
    without_data_dir(values, config.data_dir)
    kept = {key: value for key, value in values.items() if key not in _PLACES}
    return {key: without_places(value) for key, value in kept.items()}


def _read(config: Config) -> tuple[str, ...]:
    return _PARTITION_KEYS.get(config.partition.kind, ())


def _nouns(config: Config) -> list[str]:
    return [config.dataset.name, config.method.name, config.partition.kind.name]


def _group(config: Config) -> str | None:
    """Return the group: the one asked for, else the sweep's folder."""
    return config.logger.wandb_group or (config.sweep_name if in_sweep() else None)


def _tags(config: Config) -> list[str]:
    tags = [*_nouns(config), cut_name(config.split.cut_layer), f"n{config.clients.num_clients}"]
    if config.taressfl.mode.name != "off":
        tags.append(f"taressfl_{config.taressfl.mode.name}")
    tags += [name for name in (chosen("experiment"),) if name]
    if chosen("debug"):
        tags.append("debug")  # to filter out what was only tried
    return list(dict.fromkeys(tag[:MAX_TAG] for tag in tags))
