"""Rules for the method, and for rounds without traffic."""

from collections.abc import Iterator

from mocosfl.config.choices import FeatureKind, Symmetric
from mocosfl.config.derived import is_frozen, is_supervised, is_whole_network
from mocosfl.config.methods import METHODS
from mocosfl.config.schema import Config
from mocosfl.rules.problems import too_small


def method_rules(config: Config) -> Iterator[str]:
    """Yield a line for each setting that the method has no place for."""
    method, split, moco = config.method, config.split, config.moco
    yield from too_small([("method.local_epochs", method.local_epochs, 1)])
    whole, supervised = is_whole_network(config), is_supervised(config)
    if METHODS[method.name].central and config.clients.num_clients != 1:
        yield (
            f"clients.num_clients={config.clients.num_clients}: method={method.name} has one "
            "client that holds all images; set it to 1, or choose a federated method"
        )
    if not whole and split.cut_layer is None:
        yield f"split.cut_layer=null: method={method.name} cuts the network; set a cut from 1 on"
    if whole:
        yield from _whole_network(config)
    if moco.symmetric is Symmetric.server and whole and not supervised:
        yield (
            f"moco.symmetric=server: method={method.name} has no server that could exchange "
            "queries and keys; use full or none"
        )
    if method.name == "fl_moco" and moco.feature_sharing:
        yield (
            "moco.feature_sharing=true: clients of method=fl_moco see no keys but their own; set "
            "it to false"
        )


def _whole_network(config: Config) -> Iterator[str]:
    """Yield a line for each setting of the cut where nothing is cut, and for a frozen network."""
    method, split, moco = config.method, config.split, config.moco
    whole = f"method={method.name} keeps the whole network on the client"
    if split.cut_layer is not None:
        yield f"split.cut_layer={split.cut_layer}: {whole}; leave it null"
    if split.bottleneck_channels is not None:
        yield f"split.bottleneck_channels={split.bottleneck_channels}: {whole}; leave it null"
    if is_frozen(config):
        yield f"optimizer.client_lr=0: {whole}, so nothing would train; set it above 0"
    if not moco.projector_batch_norm or is_supervised(config):
        return
    if config.callbacks.knn_features is FeatureKind.projection:
        yield (
            "callbacks.knn_features=projection: a client's projector with BatchNorm keeps no "
            "running statistics to be evaluated by; use backbone"
        )
    if config.clients.batch_size * (2 if moco.symmetric is Symmetric.full else 1) < 2:
        yield (
            f"clients.batch_size={config.clients.batch_size}: BatchNorm in a client's projector "
            "needs at least 2 rows of its own a step; raise it, or moco.projector_batch_norm=false"
        )


def saving_rules(config: Config) -> Iterator[str]:
    """Yield a line for each number outside its bounds, and where there is nothing to replay."""
    s = config.saving
    yield from too_small(
        [
            ("saving.warmup_rounds", s.warmup_rounds, 0),
            ("saving.loss_threshold", s.loss_threshold, 0),
        ]
    )
    if s.enabled and (is_whole_network(config) or is_supervised(config)):
        yield (
            f"saving.enabled=true: method={config.method.name} sends no pairs of smashed data to "
            "replay; use saving=off"
        )
