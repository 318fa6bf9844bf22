"""Check that the installed packages can run MocoSFL: `python -m mocosfl.check_install`.

torch and torchvision are built for each other. Where pip also looks outside the registry (a folder
of wheels, a second index), it prefers a torch with a local label such as `2.13.0+cpu` to the
registry's plain `2.13.0`, and takes torchvision from the registry all the same. Both declare that
they fit, yet `import torchvision` then fails with `operator torchvision::nms does not exist`.

Imports nothing but the standard library until the packages it needs are known to be there.
"""

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NamedTuple

# The smallest call that needs torchvision's compiled operators.
IMPORT_TEST = (
    "import torch, torchvision; torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)"
)


class Installed(NamedTuple):
    """What the installed packages say of themselves.

    `torch` and `torchvision` are versions, `needs_torch` is torchvision's own requirement
    (`torch==2.13.0`), `needs_python` ours (`>=3.11,<3.13`), and `pair` are our two requirements
    (`torch>=2.8`, `torchvision>=0.23`).
    """

    torch: str
    torchvision: str
    needs_torch: str
    needs_python: str
    pair: tuple[str, ...]


def _requirements(package: str, names: set[str]) -> tuple[str, ...]:
    from packaging.requirements import Requirement

    lines = [Requirement(line) for line in metadata.requires(package) or ()]
    return tuple(f"{line.name}{line.specifier}" for line in lines if line.name in names)


def read_installed() -> Installed:
    """Read the versions and requirements from the packages' metadata; import none of them.

    Raises:
        PackageNotFoundError: a package is not installed for this Python.
    """
    for name in ("mocosfl", "packaging", "torch", "torchvision"):
        metadata.version(name)
    return Installed(
        torch=metadata.version("torch"),
        torchvision=metadata.version("torchvision"),
        needs_torch=next(iter(_requirements("torchvision", {"torch"})), "torch"),
        needs_python=metadata.metadata("mocosfl")["Requires-Python"],
        pair=_requirements("mocosfl", {"torch", "torchvision"}),
    )


def python_problem(python_version: str, needs_python: str) -> str | None:
    """Say what is wrong with this Python, or None: `python_version` like `3.11.7`."""
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(needs_python).contains(python_version, prereleases=True):
        return None
    return (
        f"Python {python_version}: MocoSFL needs {needs_python}; "
        "run `make clean-venv`, then `make setup PYTHON=<path of such a Python>`."
    )


def pair_problem(installed: Installed) -> str | None:
    """Say why the metadata of torch and torchvision don't fit each other, or None."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    torch, torchvision = Version(installed.torch), Version(installed.torchvision)
    found = f"torch {torch} and torchvision {torchvision}"
    # torchvision's requirement names public versions only, so `2.13.0+cpu` counts as 2.13.0 here.
    if not Requirement(installed.needs_torch).specifier.contains(torch.public, prereleases=True):
        return f"{found} are no pair: this torchvision is built for {installed.needs_torch}."
    if torch.local != torchvision.local:
        labels = [f"+{local}" if local else "none" for local in (torch.local, torchvision.local)]
        return (
            f"{found} come from two places: their build labels differ "
            f"({labels[0]} and {labels[1]}), so one was not built for the other."
        )
    return None


def import_problem() -> str | None:
    """Import torchvision and call one of its operators; say how that fails, or None.

    It happens in a process of its own, because two builds that don't fit can end the process.
    """
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_TEST], capture_output=True, text=True, check=False
    )
    if result.returncode == 0:
        return None
    lines = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
    return f"`import torch, torchvision` fails: {lines[-1]}"


def other_sources() -> list[str]:
    """List pip's settings that name other places than its one registry, e.g. `global.find-links`.

    Only their names: the addresses may hold passwords.
    """
    result = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    names = [line.partition("=")[0] for line in result.stdout.splitlines()]
    return [name for name in names if name.endswith((".find-links", ".extra-index-url"))]


def remedy(pair: tuple[str, ...]) -> str:
    """Return the commands that replace torch and torchvision by a pair from the registry."""
    sources = other_sources()
    wanted = " ".join(f"'{requirement}'" for requirement in pair)
    pip = f"{sys.executable} -m pip"
    lines = [
        "Replace both by a pair from the package registry; without PIP_FIND_LINKS pip would find",
        "the same files again, so set it as shown:",
        f"    {pip} uninstall --yes torch torchvision",
        f"    PIP_FIND_LINKS={os.devnull} {pip} install {wanted}",
        "or start afresh, which does the same: make clean-venv setup",
    ]
    if sources:
        lines += [
            f"pip looks beyond its registry here: {', '.join(sources)}",
            f"(`{pip} config list` shows where); if the above changes nothing, remove these.",
        ]
    return "\n".join(lines)


def report() -> tuple[bool, str]:
    """Return whether MocoSFL can run here, and the text that says so or tells what to do."""
    try:
        installed = read_installed()
    except metadata.PackageNotFoundError as error:
        return False, f"{error.name} is not installed for {sys.executable}: run `make setup`."
    python = python_problem(platform.python_version(), installed.needs_python)
    pair = [text for text in (pair_problem(installed), import_problem()) if text]
    if not python and not pair:
        found = f"torch {installed.torch} and torchvision {installed.torchvision}"
        return True, f"Python {platform.python_version()}, {found}: a working pair."
    lines = ["MocoSFL can't run with what is installed:"]
    lines += [f"- {text}" for text in (python, *pair) if text]
    if pair:
        lines += ["", remedy(installed.pair)]
    return False, "\n".join(lines)


def main(arguments: Sequence[str] = ()) -> int:
    """Print the report; return the exit status, 1 where MocoSFL can't run."""
    parser = argparse.ArgumentParser(
        prog="python -m mocosfl.check_install",
        description="Check that the installed packages can run MocoSFL.",
    )
    parser.parse_args(arguments)
    works, text = report()
    print(text, file=sys.stdout if works else sys.stderr)
    return 0 if works else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
