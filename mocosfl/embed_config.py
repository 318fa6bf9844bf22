"""Schema, rules and command line of `python -m mocosfl.embed`; defaults are in conf/embed.yaml."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf


@dataclass
class EmbedConfig:
    """`python -m mocosfl.embed`: features of a folder of pictures."""

    images: str = MISSING  # folder of pictures, at any depth; its subfolders are classes
    checkpoint: str = MISSING  # a run folder, a .ckpt file or an exported .safetensors
    which: str = MISSING  # in a run folder: last or best
    output_dir: str | None = None  # null: embed_<folder> in the run folder, or in the current one
    accelerator: str = MISSING  # cpu, gpu or auto
    extract_batch_size: int = MISSING  # pictures a forward pass; three times so many are in memory
    num_workers: int | None = None  # threads that decode; null: a thread a core
    skip_unreadable: bool = MISSING  # leave out what can't be read; false: refuse, with a list
    num_queries: int = MISSING  # rows of the picture sheet, at most
    num_neighbors: int = MISSING  # pictures beside each query; 0: no picture sheet
    seed: int = MISSING  # of the choice of queries; at least 0


def register() -> None:
    """Register the schema with Hydra; may be called more than once."""
    ConfigStore.instance().store(name="embed_schema", node=EmbedConfig)


register()

# Options of Hydra's whose value is an argument of its own.
_WITH_VALUE = (
    *("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
    *("--package", "-p"),
)
_KEYS = "|".join(field.name for field in fields(EmbedConfig))
_OVERRIDE = re.compile(rf"[+~]|(({_KEYS})|hydra[\w./@]*)=")


def with_folder(arguments: list[str]) -> list[str]:
    """Turn the folder on a command line into Hydra's `images='...'`.

    Args:
        arguments: of the command line, without the program.

    Raises:
        ValueError: there are two folders.
    """
    kept, folders = list[str](), list[str]()
    before = ""
    for argument in arguments:
        (folders if _is_folder(argument, before) else kept).append(argument)
        before = argument
    if len(folders) > 1:
        raise ValueError(
            f"{folders[1]}: one folder of images expected, {folders[0]} is given already; put the "
            "pictures into one, or start the command for each"
        )
    return [*(f"images={quoted(folder)}" for folder in folders), *kept]


def _is_folder(argument: str, before: str) -> bool:
    if argument.startswith("-") or before in _WITH_VALUE or _OVERRIDE.match(argument):
        return False
    # What looks like an override of a key that isn't ours is Hydra's to refuse.
    return "=" not in argument or Path(argument).exists()


def quoted(text: str) -> str:
    """Quote a text so that Hydra and OmegaConf take each character as it stands."""
    # Backslashes count before a quote and at the end alone; `${` would be an interpolation.
    text = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return "'" + text.replace("${", "\\${") + "'"


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
    from mocosfl.accelerator import accelerator_rules

    if OmegaConf.is_missing(config, "images"):
        yield "images=???: name a folder, python -m mocosfl.embed <folder> checkpoint=<run folder>"
    if OmegaConf.is_missing(config, "checkpoint"):
        yield (
            "checkpoint=???: name an encoder, checkpoint=<run folder>, a .ckpt file or an exported "
            ".safetensors"
        )
    if config.which not in ("last", "best"):
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
