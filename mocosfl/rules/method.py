"""Rules of `validate` about the method and the course of a round."""

from collections.abc import Iterator

from mocosfl.config.choices import Averaging, ClientState, FeatureKind, Symmetric
from mocosfl.config.derived import pool_size
from mocosfl.config.schema import Config

METHODS = {  # name -> (method.whole_network, method.supervised)
    "mocosfl": (False, False),
    "monacosfl": (False, False),
    "fl_moco": (True, False),
    "central_moco": (True, False),
    "sfl_supervised": (False, True),
    "central_supervised": (True, True),
}

CENTRAL_METHODS = ("central_moco", "central_supervised")


def method_rules(config: Config) -> Iterator[str]:
    """Yield a line for each setting that the method has no place for."""
    method, split, moco = config.method, config.split, config.moco
    if method.name not in METHODS:
        return  # reported among the choices
    if (method.whole_network, method.supervised) != METHODS[method.name]:
        yield (
            f"method.name={method.name}, method.whole_network={method.whole_network}, "
            f"method.supervised={method.supervised}: do not belong together; choose "
            f"method={method.name} and leave the other two alone"
        )
        return
    if method.name in CENTRAL_METHODS and config.clients.num_clients != 1:
        yield (
            f"clients.num_clients={config.clients.num_clients}: method={method.name} has one "
            "client that holds all images; set it to 1, or choose a federated method"
        )
    if not method.whole_network and split.cut_layer is None:
        yield f"split.cut_layer=null: method={method.name} cuts the network; set a cut from 1 on"
    if method.whole_network:
        yield from _whole_network(config)
    if method.supervised and method.align_momentum:
        yield (
            f"method.align_momentum=true: method={method.name} has no momentum heads; set it to "
            "false"
        )
    if config.saving.enabled and (method.whole_network or method.supervised):
        yield (
            f"saving.enabled=true: method={method.name} sends no pairs of smashed data to replay; "
            "use saving=off"
        )
    if moco.symmetric is Symmetric.server and method.whole_network and not method.supervised:
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
    if config.optimizer.client_lr == 0:
        yield f"optimizer.client_lr=0: {whole}, so nothing would train; set it above 0"
    if not moco.projector_batch_norm or method.supervised:
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


def round_rules(config: Config) -> Iterator[str]:
    """Yield a line for each impossible course of a round: who is there, what a sync gives."""
    dropout, strength = config.clients.dropout_probability, config.averaging.divergence_strength
    if not 0 <= dropout < 1:
        yield f"clients.dropout_probability={dropout}: must be from 0 to below 1"
    if not 0 < strength <= 1:
        yield f"averaging.divergence_strength={strength}: must be above 0 and at most 1"
    participation = config.clients.participation
    if 0 < dropout < 1 and 0 < participation <= 1 and pool_size(config) == 1:
        yield (
            f"clients.dropout_probability={dropout}: a step needs a client, and the pool has only "
            "one; set it to 0, or use more clients"
        )
    kind = config.averaging.kind
    if kind is not Averaging.mean and config.optimizer.client_lr == 0:
        yield (
            f"averaging.kind={kind.name}: optimizer.client_lr=0 freezes the heads, so nothing is "
            "averaged; use averaging=mean"
        )
    stateless = config.clients.client_state is ClientState.stateless
    if kind is Averaging.divergence_aware and stateless and participation < 1:
        yield (
            "averaging.kind=divergence_aware: with clients.client_state=stateless a client that "
            "leaves the pool keeps nothing of its own; use client_state=bank or averaging=mean"
        )
