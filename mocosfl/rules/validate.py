"""Whether a run's configuration makes sense, checked before anything is built or read."""

from collections.abc import Callable, Iterator

from mocosfl.config.schema import Config
from mocosfl.rules.callbacks import callback_rules
from mocosfl.rules.clients import averaging_rules, client_rules, heterogeneity_rules
from mocosfl.rules.contrast import moco_rules, queue_rules
from mocosfl.rules.data import augmentation_rules, dataset_rules, partition_rules
from mocosfl.rules.edge import edge_rules
from mocosfl.rules.method import method_rules, saving_rules
from mocosfl.rules.names import missing_rules, name_rules
from mocosfl.rules.network import network_rules
from mocosfl.rules.optimizer import optimizer_rules
from mocosfl.rules.privacy import taressfl_rules
from mocosfl.rules.problems import refuse
from mocosfl.rules.trainer import process_rules, trainer_rules

RULES: tuple[Callable[[Config], Iterator[str]], ...] = (
    trainer_rules,
    dataset_rules,
    augmentation_rules,
    partition_rules,
    client_rules,
    heterogeneity_rules,
    averaging_rules,
    moco_rules,
    queue_rules,
    method_rules,
    saving_rules,
    optimizer_rules,
    taressfl_rules,
    network_rules,
    process_rules,
    edge_rules,
    callback_rules,
)


def validate(config: Config) -> None:
    """Check the whole configuration; no value is changed.

    Whether this machine has what it asks for is `check_machine`'s to say.

    Raises:
        ValueError: names every broken rule, one a line: key, value, rule, way out. Where a value
            is missing, or a name is not known, those alone: what follows from them is not known.
    """
    refuse(missing_rules(config))
    refuse(name_rules(config))
    refuse(line for rules in RULES for line in rules(config))
