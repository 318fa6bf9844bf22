"""The arguments of a command, before Hydra reads them."""

import re
from dataclasses import fields
from pathlib import Path

from mocosfl.config.embed import EmbedConfig

# Options of Hydra's whose value is an argument of its own.
_WITH_VALUE = (
    *("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
    *("--package", "-p"),
)
_KEYS = "|".join(field.name for field in fields(EmbedConfig))
_OVERRIDE = re.compile(rf"[+~]|(({_KEYS})|hydra[\w./@]*)=")

SIMULATED_ALONE = (
    "this program simulates its clients; a run whose clients are other machines is trained and "
    "resumed with python -m mocosfl.edge.server (docs/edge.md)"
)


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


def quote_choices(arguments: list[str]) -> list[str]:
    """Put quotes around the numbers in `clients=5,100`, so that Hydra takes them as names.

    Hydra reads a bare number as an integer and accepts only strings as a group's choice.

    Args:
        arguments: of the command line.
    """
    bare_number = re.compile(r"(?<![\w'\".])\d+(?![\w'\".])")
    return [
        bare_number.sub(r"'\g<0>'", argument) if argument.startswith("clients=") else argument
        for argument in arguments
    ]


def check_simulated(arguments: list[str]) -> list[str]:
    """Return arguments of a program that simulates its clients.

    Raises:
        ValueError: one of them is for the networked server.
    """
    for argument in arguments:
        if is_of_edge(argument):
            raise ValueError(f"{argument}: {SIMULATED_ALONE}")
    return arguments


def is_of_edge(argument: str) -> bool:
    """Return whether an argument sets something of `edge`, the networked server."""
    return re.match(r"[+~]*edge[.=]", argument) is not None
