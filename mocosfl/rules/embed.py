"""Rules for `python -m mocosfl.embed`."""

from collections.abc import Iterator

from omegaconf import OmegaConf

from mocosfl.config.embed import EmbedConfig
from mocosfl.rules.command import command_rules
from mocosfl.rules.problems import refuse, too_small


def validate_embed(config: EmbedConfig) -> None:
    """Check the configuration; no value is changed.

    Raises:
        ValueError: names every broken rule, one a line.
    """
    refuse(_problems(config))


def _problems(config: EmbedConfig) -> Iterator[str]:
    if OmegaConf.is_missing(config, "images"):
        yield "images=???: name a folder, python -m mocosfl.embed <folder> checkpoint=<run folder>"
    ask = "an encoder, checkpoint=<run folder>, a .ckpt file or an exported .safetensors"
    yield from command_rules(config, ask)
    at_least = [
        ("extract_batch_size", config.extract_batch_size, 1),
        ("num_queries", config.num_queries, 1),
        ("num_neighbors", config.num_neighbors, 0),
        ("seed", config.seed, 0),
    ]
    if config.num_workers is not None:
        at_least.append(("num_workers", config.num_workers, 1))
    yield from too_small(at_least)
