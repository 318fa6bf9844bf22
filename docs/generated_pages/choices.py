"""The choices of the configuration's groups: what each file in `conf/` says and sets."""

from typing import Any, NamedTuple

from omegaconf import OmegaConf

from mocosfl.config.hydra_setup import CONF


class Choice(NamedTuple):
    """A file of a group."""

    name: str
    comment: str  # at its head, in one line; commands in backticks
    values: dict[str, str]  # by full key, those of the files it builds on too


def read_group(group: str) -> list[Choice]:
    """Read a group's choices, numbers in their order and then names in theirs."""
    files = sorted((CONF / group).glob("*.yaml"), key=lambda file: _rank(file.stem))
    return [read_choice(group, file.stem) for file in files]


def read_choice(group: str, name: str) -> Choice:
    """Read one choice of a group."""
    text = (CONF / group / f"{name}.yaml").read_text()
    prefix = "" if text.startswith("# @package _global_") else f"{group}."
    content = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    assert isinstance(content, dict)
    values: dict[str, str] = {}
    for entry in content.pop("defaults", []):
        values |= _default(group, prefix, entry)
    values |= flat({str(key): value for key, value in content.items()}, prefix)
    return Choice(name, _in_line(head_comment(text)), values)


def _in_line(comment: list[str]) -> str:
    """Join a comment's lines; those that are indented are commands."""
    words = (f"`{line.strip()}`" if line.startswith("  ") else line for line in comment)
    return " ".join(words)


def _default(group: str, prefix: str, entry: Any) -> dict[str, str]:
    """Return what an entry of a file's defaults list sets.

    A file of the same group is read; a choice of another group is a value like any other.
    """
    if isinstance(entry, str):
        parent = entry.partition("@")[0]
        return {} if parent == "_self_" else read_choice(group, parent).values
    chosen = {}
    for key, choice in entry.items():
        other, at, place = key.removeprefix("override ").lstrip("/").partition("@")
        chosen[f"{other}@{prefix}{place}" if at else other] = written(choice)
    return chosen


def head_comment(text: str) -> list[str]:
    """Return the lines of the comment at a file's head, without Hydra's own."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return [line for line in lines if not line.startswith("@package")]


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested values by dotted key, as they are written on a command line."""
    values: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = written(value)
    return values


def written(value: Any) -> str:
    """Return a value as it is typed: `null`, `true`, `[0.1,0.01]`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(written(item) for item in value)}]"
    return str(value) if value != "" else '""'


def _rank(name: str) -> tuple[int, str]:
    digits = name.partition("_")[0]
    return (int(digits), name) if digits.isdigit() else (10**9, name)
