"""The page of all commands: what each says it does, and its `--help`."""

import ast
import os
import re
import runpy
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from hydra.core.global_hydra import GlobalHydra

from generated_pages.choices import head_comment
from mocosfl.config.hydra_setup import CONF

ROOT = Path(__file__).parents[2]
SCRIPTS = ("train.py", "linear_probe.py")  # a user's first two, so they come first
# Programs that other programs start; nobody types them.
NOT_TYPED = {"mocosfl.overhead.one_client": "the overhead summary runs it"}
OF_HYDRA = (
    "Takes `key=value` as `train.py` does; its keys are on the page of the "
    "[configuration](configuration.md), and `--help` prints them."
)
WIDTH = "88"  # columns of a help text
_folded = textwrap.TextWrapper(
    int(WIDTH), subsequent_indent="    ", replace_whitespace=False, break_on_hyphens=False
)
# Hydra's options of the first, with groups and choices, are the same for all programs of Hydra's.
FULL_HELP = "train.py"
# From here on Hydra's help prints the whole configuration, which has a page of its own.
_CONFIGURATION = re.compile(r"^== This run's configuration.*", re.M | re.S)
_HYDRA = re.compile(r'^@hydra_command\("(\w+)"\)$', re.M)


def commands_page() -> str:
    """Return the generated part of `docs/commands.md`, MyST Markdown."""
    return "\n\n".join(part for name in find_commands() for part in _command(name)) + "\n"


def find_commands() -> list[str]:
    """Return the programs that a user types: the scripts, then the package's modules by name."""
    modules = []
    for file in sorted((ROOT / "mocosfl").rglob("*.py")):
        if '__name__ == "__main__"' not in file.read_text() and file.name != "__main__.py":
            continue
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        modules.append(name.removesuffix(".__main__"))
    return [*SCRIPTS, *(name for name in sorted(modules) if name not in NOT_TYPED)]


def command_line(name: str) -> str:
    """Return what is typed to run a program."""
    return f"python {name}" if name.endswith(".py") else f"python -m {name}"


def purpose(name: str) -> str:
    """Return the first paragraph of a program's docstring, without the command it names."""
    words = (ast.get_docstring(ast.parse(_source(name))) or "").split("\n\n")[0]
    return re.sub(r"\s+", " ", words)


def config_file(name: str) -> str | None:
    """Return the file in `conf/` that a program of Hydra's composes, without its suffix."""
    found = _HYDRA.search(_source(name))
    return found and found[1]


def _source(name: str) -> str:
    if name.endswith(".py"):
        return (ROOT / name).read_text()
    file = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    return (file if file.is_file() else file.with_suffix("") / "__main__.py").read_text()


def help_text(name: str, parts: Sequence[str] = ()) -> str:
    """Return what `--help` prints, without the configuration of a program of Hydra's.

    Args:
        name: of the program.
        parts: subcommands before `--help`.
    """
    out = StringIO()
    arguments = [name, *parts, "--help"]
    with redirect_stdout(out), patch.object(sys, "argv", arguments), _own_hydra():
        try:
            if name.endswith(".py"):
                runpy.run_path(str(ROOT / name), run_name="__main__")
            else:
                runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"{command_line(name)} --help: exit code {end.code}") from end
    lines = _CONFIGURATION.sub("", out.getvalue()).rstrip().splitlines()
    return "\n".join(_folded.fill(line) for line in lines)


@contextmanager
def _own_hydra() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with patch.dict(os.environ, COLUMNS=WIDTH), warnings.catch_warnings():
        # What runpy says of a module that somebody has imported before, as tests do.
        warnings.filterwarnings("ignore", ".* found in sys.modules after import", RuntimeWarning)
        yield
    GlobalHydra.instance().clear()


def subcommands(text: str) -> list[str]:
    """Return the subcommands that a help text lists below an indented metavar in capitals."""
    listed = re.search(r"^positional arguments:\n  [A-Z]+\n((?:    .*\n?)+)", text, re.M)
    return re.findall(r"^    ([a-z]\w*)\b", listed[1], re.M) if listed else []


def _command(name: str) -> list[str]:
    title = [f"## {command_line(name)}", purpose(name)]
    file = config_file(name)
    if file is not None and name != FULL_HELP:
        comment = "\n".join(head_comment((CONF / f"{file}.yaml").read_text()))
        return [*title, f"```text\n{comment}\n```", OF_HYDRA]
    text = help_text(name)
    parts = [*title, f"```text\n{text}\n```"]
    for part in subcommands(text):
        parts += [f"### {command_line(name)} {part}", f"```text\n{help_text(name, [part])}\n```"]
    return parts
