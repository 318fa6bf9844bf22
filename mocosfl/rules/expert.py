"""Rules for the training of an expert, `taressfl=expert`."""

from collections.abc import Iterator

from mocosfl.config.choices import Averaging, PartitionKind
from mocosfl.config.schema import Config


def expert_rules(config: Config) -> Iterator[str]:
    """Yield a line for each setting that one head in one place has no use for."""
    t, clients = config.taressfl, config.clients
    alone = [
        ("clients.num_clients", clients.num_clients, 1),
        ("clients.participation", clients.participation, 1),
        ("clients.dropout_probability", clients.dropout_probability, 0),
        ("heterogeneity.rich_fraction", config.heterogeneity.rich_fraction, 0),
        ("method.local_epochs", config.method.local_epochs, 1),
    ]
    for key, value, wanted in alone:
        if value != wanted:
            yield f"{key}={value}: an expert is one head in one place; set it to {wanted}"
    if config.partition.kind is not PartitionKind.iid:
        yield f"partition.kind={config.partition.kind.name}: an expert has no clients; use iid"
    if config.averaging.kind is not Averaging.mean:
        yield f"averaging.kind={config.averaging.kind.name}: an expert has no clients; use mean"
    if config.dataset.source == "pictures":
        yield (
            "dataset.source=pictures: an expert reads images from a cache; use "
            "dataset.source=image_folder"
        )
    if t.target_fraction > 0 and not 0 < t.target_rows < clients.batch_size:
        yield (
            f"taressfl.target_rows={t.target_rows}: must be above 0 and below clients.batch_size="
            f"{clients.batch_size}; the other rows are auxiliary images"
        )
    if t.auxiliary is None:
        yield (
            "taressfl.auxiliary=null: an expert needs other images beside the target's; choose "
            "them as in dataset@taressfl.auxiliary=cifar100"
        )
        return
    if (t.auxiliary.name, t.auxiliary.path) == (config.dataset.name, config.dataset.path):
        yield (
            f"taressfl.auxiliary.name={t.auxiliary.name}: is the target's data set itself, all of "
            "it; choose another, as in dataset@taressfl.auxiliary=cifar10"
        )
    if t.auxiliary.source == "pictures":
        yield (
            "taressfl.auxiliary.source=pictures: an expert reads images from a cache; use "
            "taressfl.auxiliary.source=image_folder"
        )
    if t.auxiliary.image_size != config.dataset.image_size:
        yield (
            f"taressfl.auxiliary.image_size={t.auxiliary.image_size}: the target's images are "
            f"dataset.image_size={config.dataset.image_size} pixels wide; choose an auxiliary set "
            "of that size, or set both sizes alike"
        )
