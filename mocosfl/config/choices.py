"""The values that a key can take, by name.

Names are what the user types, so they are lower case.
"""

from enum import Enum


class Symmetric(Enum):
    """How the contrastive loss uses the two views (`moco.symmetric`)."""

    none = "none"
    server = "server"
    full = "full"


class PartitionKind(Enum):
    """How the training images are dealt to the clients (`partition.kind`)."""

    iid = "iid"
    shards = "shards"
    dirichlet = "dirichlet"
    quantity_skew = "quantity_skew"
    file = "file"


PARTITION_FILE = "partition.json"  # in a run's folder; what `PartitionKind.file` reads


class Averaging(Enum):
    """What the clients are given at a sync (`averaging.kind`)."""

    mean = "mean"
    by_images = "by_images"
    divergence_aware = "divergence_aware"


class TaressflMode(Enum):
    """What the privacy module does (`taressfl.mode`)."""

    off = "off"
    on = "on"  # clients start from an expert's head and stay frozen
    online = "online"  # each client's own regulariser in the ordinary loop
    expert = "expert"  # trains such an expert: `python -m mocosfl.expert`


class ClientState(Enum):
    """What a client keeps between two rounds in the pool (`clients.client_state`)."""

    bank = "bank"
    stateless = "stateless"


class Schedule(Enum):
    """Course of a learning rate (`optimizer.schedule`)."""

    constant = "constant"
    cosine = "cosine"
    step = "step"


class ClientSchedule(Enum):
    """What the clients' learning rate follows (`optimizer.client_schedule`)."""

    rounds = "rounds"
    published = "published"


class Profiler(Enum):
    """Which of Lightning's profilers watches the run (`trainer.profiler`)."""

    none = "none"
    simple = "simple"  # seconds of each hook and callback
    advanced = "advanced"  # Python's own profiler on each of them
    pytorch = "pytorch"  # torch's operators, and a trace for Perfetto or chrome://tracing


class FeatureKind(Enum):
    """What the kNN monitor compares (`callbacks.knn_features`)."""

    backbone = "backbone"
    projection = "projection"


LEARNING = (TaressflMode.online, TaressflMode.expert)  # heads learn to evade attackers
