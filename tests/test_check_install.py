"""The guard against a torch and a torchvision that were not built for each other."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from mocosfl import check_install
from mocosfl.check_install import Installed
from tests.support.paths import ROOT

GOOD = Installed(
    torch="2.13.0",
    torchvision="0.28.0",
    needs_torch="torch==2.13.0",
    needs_python=">=3.11,<3.13",
    pair=("torch>=2.8", "torchvision>=0.23"),
)
NMS_ERROR = "operator torchvision::nms does not exist"


def write_metadata(folder: Path, name: str, version: str, *lines: str) -> None:
    """Write what pip would leave beside an installed package, with further header lines."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    header = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]
    (info / "METADATA").write_text("\n".join(header) + "\n")


def run_guard(folder: Path, *, torch: str, torchvision_code: str) -> tuple[int, str, str]:
    """Run the command where `folder` hides the installed packages: status, stdout, stderr."""
    write_metadata(folder, "torch", torch)
    write_metadata(folder, "torchvision", "0.28.0", "Requires-Dist: torch (==2.13.0)")
    bounds = ["Requires-Dist: torch>=2.8", "Requires-Dist: torchvision>=0.23"]
    write_metadata(folder, "mocosfl", "0.1.0", "Requires-Python: >=3.11,<3.13", *bounds)
    (folder / "torch.py").write_text("def zeros(*shape): return shape\n")
    (folder / "torchvision.py").write_text(torchvision_code)
    result = subprocess.run(
        [sys.executable, "-m", "mocosfl.check_install"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout, result.stderr


def test_registry_pair_has_no_problem() -> None:
    assert check_install.pair_problem(GOOD) is None


def test_pair_with_the_same_local_label_has_no_problem() -> None:
    cpu = GOOD._replace(torch="2.13.0+cpu", torchvision="0.28.0+cpu")
    assert check_install.pair_problem(cpu) is None


def test_requirement_with_a_lower_bound_accepts_newer_torch() -> None:
    newer = GOOD._replace(torch="2.15.0", torchvision="0.29.2", needs_torch="torch>=2.14.0")
    assert check_install.pair_problem(newer) is None


def test_cpu_torch_beside_the_registry_torchvision_is_a_problem() -> None:
    problem = check_install.pair_problem(GOOD._replace(torch="2.13.0+cpu"))
    assert problem is not None
    assert "torch 2.13.0+cpu and torchvision 0.28.0" in problem
    assert "+cpu and none" in problem


def test_torch_outside_torchvisions_requirement_is_a_problem() -> None:
    problem = check_install.pair_problem(GOOD._replace(torch="2.15.0"))
    assert problem is not None
    assert "built for torch==2.13.0" in problem


@pytest.mark.parametrize("version", ["3.11.0", "3.12.1", "3.12.0rc1"])
def test_supported_python_has_no_problem(version: str) -> None:
    assert check_install.python_problem(version, GOOD.needs_python) is None


@pytest.mark.parametrize("version", ["3.10.13", "3.13.0"])
def test_other_python_is_a_problem(version: str) -> None:
    problem = check_install.python_problem(version, GOOD.needs_python)
    assert problem is not None
    assert version in problem and GOOD.needs_python in problem


def test_read_installed_takes_versions_and_requirements_from_metadata(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = {"mocosfl": "0.1.0", "packaging": "26", "torch": "2.13.0+cpu", "torchvision": "0.28"}
    requirements = {
        "mocosfl": ["torch>=2.8", "numpy>=2.0", "torchvision>=0.23"],
        "torchvision": ["numpy", "torch (==2.13.0)", "gdown; extra == 'gdown'"],
    }
    monkeypatch.setattr(metadata, "version", versions.__getitem__)
    monkeypatch.setattr(metadata, "requires", requirements.__getitem__)
    monkeypatch.setattr(metadata, "metadata", lambda name: {"Requires-Python": f">=3.11 {name}"})
    assert check_install.read_installed() == Installed(
        torch="2.13.0+cpu",
        torchvision="0.28",
        needs_torch="torch==2.13.0",
        needs_python=">=3.11 mocosfl",
        pair=("torch>=2.8", "torchvision>=0.23"),
    )


def test_missing_package_is_named_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert check_install.main() == 1
    error = capsys.readouterr().err
    assert error.startswith("mocosfl is not installed") and "make setup" in error


def test_other_sources_names_the_settings_without_their_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {
        ":env:.find-links": "/wheels",
        "global.cert": "a.crt",
        "user.extra-index-url": "https://name:secret@example.invalid",
    }
    listing = "".join(f"{name}={value!r}\n" for name, value in values.items())
    answer = subprocess.CompletedProcess([], 0, stdout=listing)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: answer)
    assert check_install.other_sources() == [":env:.find-links", "user.extra-index-url"]


def test_command_explains_a_torchvision_that_does_not_import(tmp_path: Path) -> None:
    failing = f"raise RuntimeError({NMS_ERROR!r})"
    status, out, error = run_guard(tmp_path, torch="2.13.0+cpu", torchvision_code=failing)
    assert (status, out) == (1, "")
    assert "torch 2.13.0+cpu and torchvision 0.28.0 come from two places" in error
    assert f"RuntimeError: {NMS_ERROR}" in error
    assert "pip uninstall --yes torch torchvision" in error
    assert "pip install 'torch>=2.8' 'torchvision>=0.23'" in error


def test_command_reports_a_torchvision_that_ends_the_process(tmp_path: Path) -> None:
    crash = "import os; os._exit(139)"
    status, _, error = run_guard(tmp_path, torch="2.13.0", torchvision_code=crash)
    assert status == 1
    assert "exit status 139" in error


def test_command_accepts_a_pair_whose_operators_work(tmp_path: Path) -> None:
    operators = "class ops:\n    nms = staticmethod(lambda boxes, scores, iou: [0])\n"
    status, out, error = run_guard(tmp_path, torch="2.13.0", torchvision_code=operators)
    assert (status, error) == (0, "")
    assert "torch 2.13.0 and torchvision 0.28.0: a working pair" in out


def test_the_guard_itself_imports_neither_package() -> None:
    code = "import sys, mocosfl.check_install; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
