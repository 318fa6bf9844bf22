"""The rule of imports: a package imports only from the lines above it (docs/architecture.md)."""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from mocosfl.config.hydra_setup import CONF
from tests.support.paths import ROOT

PACKAGE = ROOT / "mocosfl"
ORDER = (
    ("system", "pictures"),
    ("config",),
    ("models",),
    ("federation",),
    ("data", "runs"),
    ("privacy", "tracking"),
    ("rules", "evaluation"),
    ("overhead",),
    ("training", "report"),
    ("cli",),
    ("edge",),
    ("encoders",),
)
LINE = {name: line for line, names in enumerate(ORDER) for name in names}
# What takes long to import, may not be installed, or reads the number of threads when it is
# imported. An import inside a function keeps it out of `--help`, of the plan or of a command that
# does without it; there is no other reason for one.
HEAVY = ("torch", "torchvision", "pytorch_lightning", "matplotlib", "wandb", "sklearn", "numpy",
         "onnx", "onnxruntime", "grpc", "wandb_workspaces", "packaging")  # fmt: skip


class Import(NamedTuple):
    file: Path  # that imports
    name: str  # dotted, what it imports
    inside: bool  # a function
    typing: bool  # for types alone


def imports(file: Path) -> Iterator[Import]:
    """Yield the imports of a file, those inside functions too."""

    def visit(node: ast.AST, inside: bool, typing: bool) -> Iterator[Import]:
        inside |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.Import):
            yield from (Import(file, alias.name, inside, typing) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                yield Import(file, f"{module}.{alias.name}", inside, typing)
        only_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.iter_child_nodes(node):
            in_body = only_types and child in node.body
            yield from visit(child, inside, typing or in_body)

    return visit(ast.parse(file.read_text()), inside=False, typing=False)


FILES = [*sorted(PACKAGE.rglob("*.py")), ROOT / "train.py", ROOT / "linear_probe.py"]
ALL = [found for file in FILES for found in imports(file)]
OURS = [found for found in ALL if found.name.startswith("mocosfl.")]


def module_of(name: str) -> Path | None:
    """Return the file of a dotted name of ours, or of the module that it is a name in."""
    parts = name.split(".")
    for number in (len(parts), len(parts) - 1):
        path = ROOT.joinpath(*parts[:number])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


@cache
def tops(file: Path) -> frozenset[str]:
    """Return what is heavy of what a file of ours imports at its top, itself or by another."""
    found = [i for i in ALL if i.file == file and not (i.inside or i.typing)]
    return frozenset[str]().union(*map(brings, found))


def brings(found: Import) -> frozenset[str]:
    """Return what is heavy of what an import brings."""
    if not found.name.startswith("mocosfl"):
        return frozenset({found.name.split(".")[0]} & set(HEAVY))
    target = module_of(found.name)
    if target is None:
        return frozenset()
    # Python runs the packages above a module first.
    above = [folder / "__init__.py" for folder in target.parents if folder.is_relative_to(PACKAGE)]
    return frozenset[str]().union(*map(tops, {target, *above}))


def test_imports_are_by_whole_names() -> None:
    # The tests below read nothing else.
    found = [i for i in ALL if i.name.startswith(".") or i.name == "mocosfl"]
    assert found == []
    by_text = re.compile(r"importlib\.import_module|__import__")
    assert not [file for file in FILES if by_text.search(file.read_text())]


def test_a_package_imports_only_from_the_lines_above_it() -> None:
    against = []
    for file, name, *_ in OURS:
        package, target = "".join(file.parent.relative_to(ROOT).parts[1:2]), name.split(".")[1]
        if package in ("", target):  # a command at the root imports all
            continue
        if target not in LINE or LINE[target] >= LINE[package]:
            against.append(f"{file.relative_to(ROOT)} -> {name}")
    assert against == []


def test_every_folder_has_its_line() -> None:
    assert {file.parts[len(PACKAGE.parts)] for file in PACKAGE.glob("*/*.py")} == set(LINE)


def test_the_documentation_shows_this_order() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    (block,) = re.findall(r"^```text\n(system.*?)^```", text, re.MULTILINE | re.DOTALL)
    *packages, commands = block.splitlines()
    assert packages == [", ".join(names) for names in ORDER]
    assert commands.startswith("commands: ")


def test_only_commands_are_at_the_root_a_dozen_at_most_and_nobody_imports_them() -> None:
    commands = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"}
    assert len(commands) <= 12
    others = [*FILES, *ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("docs/**/*.py")]
    found = [f"{file.relative_to(ROOT)} -> {name}" for other in others
             for file, name, *_ in imports(other)
             if name.startswith("mocosfl.") and name.split(".")[1] in commands]  # fmt: skip
    assert found == []
    assert not [c for c in commands if "__name__" not in (PACKAGE / f"{c}.py").read_text()]


def test_clients_and_server_of_a_network_do_not_import_each_other() -> None:
    sides = {PACKAGE / "edge" / "client": "server", PACKAGE / "edge" / "server": "client"}
    found = [i for i in OURS for side, other in sides.items()
             if i.file.parent == side and i.name.startswith(f"mocosfl.edge.{other}.")]  # fmt: skip
    assert found == []


def test_a_public_name_stands_for_one_thing() -> None:
    def names(file: Path) -> Iterator[str]:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name
            if isinstance(node, ast.Assign):  # a name of a type, not a constant
                found = (ast.unparse(target) for target in node.targets)
                yield from (name for name in found if re.match("[A-Z][a-z]", name))

    times = Counter(name for file in FILES for name in names(file) if not name.startswith("_"))
    # Each command has its own `main`.
    assert {name for name, number in times.items() if number > 1} == {"main"}


def test_what_the_configuration_names_is_there() -> None:
    named = [
        name
        for file in CONF.rglob("*.yaml")
        for name in re.findall(r"_target_: *(mocosfl\.\S+)", file.read_text())
    ]
    assert named
    for name in named:
        file = module_of(name)
        assert file is not None, name
        assert name.split(".")[-1] in {getattr(node, "name", "") for node in
                                       ast.parse(file.read_text()).body}, name  # fmt: skip


def test_no_file_imports_its_way_in_a_circle() -> None:
    left = {file: set[Path]() for file in FILES}
    for file, name, *_ in OURS:
        target = module_of(name)
        if target is not None and target != file:
            left[file].add(target)
    while free := {file for file, targets in left.items() if not targets & left.keys()}:
        left = {file: targets for file, targets in left.items() if file not in free}
    assert not left, f"among these: {sorted(str(file.relative_to(ROOT)) for file in left)}"


# What a package may import besides Python itself and ours.
OTHERS = {
    "pictures": {"matplotlib", "numpy", "torch"},
    "config": {"hydra", "numpy", "omegaconf"},
    "models": {"torch"},
    "federation": {"numpy", "torch"},
}


@pytest.mark.parametrize("package", OTHERS)
def test_config_needs_no_torch_and_the_algorithm_nothing_else(package: str) -> None:
    known = OTHERS[package] | {"mocosfl", *sys.stdlib_module_names}
    found = [i for i in ALL if i.file.is_relative_to(PACKAGE / package)]
    assert {i.name.split(".")[0] for i in found} - known == set()


# Each answers `--help` at once. Two others need NumPy for that: `report`, `edge.deal`.
COMMANDS = [ROOT / "train.py", ROOT / "linear_probe.py", *PACKAGE.glob("*.py"),
            *PACKAGE.glob("edge/*/__main__.py"), PACKAGE / "edge" / "certificates.py",
            PACKAGE / "overhead" / "__main__.py"]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_command_starts_without_what_is_heavy(command: Path) -> None:
    assert tops(command) == frozenset()


def test_imports_inside_functions_keep_out_what_is_heavy() -> None:
    needless = [
        f"{found.file.relative_to(ROOT)}: {found.name}"
        for found in ALL
        if found.inside and not brings(found) - tops(found.file)
    ]
    assert needless == []
