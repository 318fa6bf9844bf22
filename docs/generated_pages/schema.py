"""The configuration's schema as its source has it: fields, types and their comments.

Read from the source and not from the classes, because a comment is no part of a class.
"""

import ast
import re
import tokenize
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import NamedTuple

_CONFIG = Path(__file__).parents[2] / "mocosfl" / "config"


class Field(NamedTuple):
    """A key of the configuration."""

    name: str
    annotation: str  # as in the source, such as "int | None"
    meaning: str  # the comment after or above the field; "" without one


class Section(NamedTuple):
    """A dataclass of the schema."""

    name: str
    purpose: str  # its docstring
    fields: list[Field]


class Schema(NamedTuple):
    """All sections and all enums by name."""

    sections: dict[str, Section]
    enums: dict[str, list[str]]


def read_schema() -> Schema:
    """Read the files that hold the schema."""
    sections: dict[str, Section] = {}
    enums: dict[str, list[str]] = {}
    for file in sorted(_CONFIG.glob("*.py")):
        source = file.read_text()
        comments = _comments(source)
        for node in ast.parse(source).body:
            if not isinstance(node, ast.ClassDef):
                continue
            if any(isinstance(base, ast.Name) and base.id == "Enum" for base in node.bases):
                enums[node.name] = list(_members(node))
            elif any(isinstance(d, ast.Name) and d.id == "dataclass" for d in node.decorator_list):
                fields = [_field(child, comments) for child in _annotated(node)]
                purpose = re.sub(r"\s+", " ", ast.get_docstring(node) or "")
                sections[node.name] = Section(node.name, purpose, fields)
    return Schema(sections, enums)


class _Comment(NamedTuple):
    text: str
    alone: bool  # on a line of its own


def _comments(source: str) -> dict[int, _Comment]:
    """Return the comments by line."""
    found = {}
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            found[token.start[0]] = _Comment(token.string.lstrip("# "), alone)
    return found


def _annotated(node: ast.ClassDef) -> Iterator[ast.AnnAssign]:
    return (child for child in node.body if isinstance(child, ast.AnnAssign))


def _members(enum: ast.ClassDef) -> Iterator[str]:
    for child in enum.body:
        if isinstance(child, ast.Assign) and isinstance(child.targets[0], ast.Name):
            yield child.targets[0].id


def _field(node: ast.AnnAssign, comments: dict[int, _Comment]) -> Field:
    assert isinstance(node.target, ast.Name)
    lines = []
    after = comments.get(node.end_lineno or node.lineno)
    if after is not None and not after.alone:
        lines.append(after.text)
    above = node.lineno - 1
    while above in comments and comments[above].alone:
        lines.insert(0, comments[above].text)
        above -= 1
    return Field(node.target.id, ast.unparse(node.annotation), " ".join(lines))
