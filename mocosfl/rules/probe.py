"""Rules for `linear_probe.py`."""

from collections.abc import Iterator

from omegaconf import OmegaConf

from mocosfl.config.probe import MIN_MAP_IMAGES, ProbeConfig
from mocosfl.rules.command import command_rules
from mocosfl.rules.problems import not_positive, refuse, too_small


def validate_probe(config: ProbeConfig) -> None:
    """Check the configuration of the probes; no value is changed.

    Raises:
        ValueError: names every broken rule, one a line.
    """
    refuse(_probe(config))


def _probe(config: ProbeConfig) -> Iterator[str]:
    """Yield a line for each broken rule of the probes."""
    at_least = [
        ("seed", config.seed, 0),
        ("num_epochs", config.num_epochs, 1),
        ("batch_size", config.batch_size, 2),
        ("hidden_dim", config.hidden_dim, 1),
        ("extract_batch_size", config.extract_batch_size, 1),
    ]
    if config.knn_num_neighbors is not None:
        at_least.append(("knn_num_neighbors", config.knn_num_neighbors, 1))
    yield from too_small(at_least)
    yield from not_positive(
        [
            ("learning_rate", config.learning_rate),
            ("knn_temperature", config.knn_temperature),
        ]
    )
    if config.embedding_map_images != 0 and config.embedding_map_images < MIN_MAP_IMAGES:
        yield (
            f"embedding_map_images={config.embedding_map_images}: must be 0 (no map) or at least "
            f"{MIN_MAP_IMAGES}"
        )
    for fraction in config.label_fractions:
        if not 0 < fraction <= 1:
            yield f"label_fractions={list(config.label_fractions)}: each above 0 and at most 1"
    ask = "what to probe, checkpoint=<run folder>, a .ckpt file or none"
    yield from command_rules(config, ask)
    if OmegaConf.is_missing(config, "checkpoint"):
        return
    if config.checkpoint == "none" and config.run is None:
        yield "checkpoint=none: name the run whose untrained encoder to probe, run=<run folder>"
    if config.checkpoint != "none" and config.run is not None:
        yield f"run={config.run}: is only read with checkpoint=none; leave it out"
