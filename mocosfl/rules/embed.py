"""Rules for `python -m mocosfl.embed`."""

from collections.abc import Iterator

from omegaconf import OmegaConf

from mocosfl.config.embed import EmbedConfig
from mocosfl.runs.folder import WHICH


def validate_embed(config: EmbedConfig) -> None:
    """Check the configuration; no value is changed.

    Raises:
        ValueError: names every broken rule, one a line.
    """
    problems = list(_problems(config))
    if problems:
        raise ValueError("\n".join(problems))


def _problems(config: EmbedConfig) -> Iterator[str]:
    # Imported here, so that --help does not wait for torch.
    from mocosfl.rules.machine import accelerator_rules

    if OmegaConf.is_missing(config, "images"):
        yield "images=???: name a folder, python -m mocosfl.embed <folder> checkpoint=<run folder>"
    if OmegaConf.is_missing(config, "checkpoint"):
        yield (
            "checkpoint=???: name an encoder, checkpoint=<run folder>, a .ckpt file or an exported "
            ".safetensors"
        )
    if config.which not in WHICH:
        yield f"which={config.which}: choose last or best"
    yield from accelerator_rules(config.accelerator)
    for key, least in (
        ("extract_batch_size", 1),
        ("num_workers", 1),
        ("num_queries", 1),
        ("num_neighbors", 0),
        ("seed", 0),
    ):
        value = getattr(config, key)
        if value is not None and value < least:
            yield f"{key}={value}: must be at least {least}"
