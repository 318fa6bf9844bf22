"""Markdown documents as a test reads them: fenced blocks, and commands in them and in the text."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from tests.support.paths import ROOT

_MARK = re.compile(r"<!-- (file|not run): (.*?) -->")


class Block(NamedTuple):
    """A fenced block."""

    place: str  # file and line
    language: str
    text: str
    file: str | None  # `<!-- file: NAME -->` above it: the block is the content of that file
    not_run: str | None  # `<!-- not run: REASON -->` above it


def read_blocks(path: Path) -> list[Block]:
    """Read the fenced blocks of a document; those in lists lose their indentation."""
    blocks, marks = [], dict[str, str]()
    lines = enumerate(path.read_text().splitlines(), start=1)
    for number, line in lines:
        if mark := _MARK.fullmatch(line.strip()):
            marks[mark[1]] = mark[2]
        elif fence := re.match(r"( *)```(\S*)", line):
            inner = []
            for _, content in lines:
                if content.strip() == "```":
                    break
                inner.append(content)
            place = f"{path.relative_to(ROOT)}:{number}"
            text = dedent("\n".join(inner)) + "\n"
            blocks.append(Block(place, fence[2], text, marks.get("file"), marks.get("not run")))
            marks = {}
        elif line.strip():
            marks = {}
    return blocks


def shell_lines(text: str) -> Iterator[str]:
    """Yield the command lines of a block, those continued with a backslash as one."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.strip():
            yield line.strip()


def spoken_commands(path: Path) -> Iterator[str]:
    """Yield the commands of ours that a document has in its text, in backticks."""
    text = re.sub(r"^( *)```.*?^\1```", "", path.read_text(), flags=re.M | re.S)
    for span in re.findall(r"`([^`]+)`", text):
        if re.match(r"python (train|linear_probe)\.py |python -m mocosfl", span):
            yield " ".join(span.split())


def arguments(line: str) -> list[str]:
    """Split a command line; a placeholder such as `<run folder>` becomes one word.

    Of a placeholder that offers a choice, `<iid or shards>`, the first is taken, and `<N>` is 100.
    """
    line = re.sub(r"<([\w.]+)( or [^>]*)>", r"\1", line).replace("<N>", "100")
    line = re.sub(r"<([^>]*)>", lambda found: found[1].replace(" ", "_").replace("'", ""), line)
    return shlex.split(line, comments=True)
