"""The documentation: what it says to type works, and the site is built without a warning.

Marks in a document (comments, which no reader sees):

    <!-- not run: REASON -->   the block below can't run here
    <!-- file: NAME -->        the block below is the content of that file
"""

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from generated_pages.commands import config_file, find_commands
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from PIL import Image

from mocosfl.config.command_line import with_folder
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_metrics
from tests.support.configurations import composed_with_hydra
from tests.support.document_script import RUN_FOLDER, Step
from tests.support.documents import Block, arguments, read_blocks, shell_lines, spoken_commands
from tests.support.experiments import TWO_STEPS, jobs
from tests.support.paths import ROOT
from tests.support.picture_folders import write_digits

README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGES = [README, ROOT / "multirun" / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
# These are run, not only composed; the first with the quick run, which has a best checkpoint.
RUN_PAGES = [
    ROOT / "docs" / "encoder.md",
    README,
    ROOT / "docs" / "methods.md",
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
]

# The configuration of a Hydra program, by what is typed after `python`.
CONFIGURED = {name: file for name in find_commands() if (file := config_file(name))}

# Blocks that can't run here, by the first words of their reason.
NOT_RUN = {
    "README.md": ["they install", "the tests run"],
    "docs/tutorial.md": ["the tree"],
    "docs/howto/cluster.md": ["needs Slurm"],
}

# What makes a command of a document quick. It says nothing of the keys that a document is about,
# but for the length of a run and the size of its network.
SHORT = {
    "train.py": TWO_STEPS,
    "linear_probe.py": ["num_epochs=1", "wandb=false"],
    "mocosfl.overhead": ["callbacks.measure_client_memory=false"],
    "mocosfl.embed": ["num_neighbors=2", "num_queries=2"],
}


def program(words: list[str]) -> str:
    """Return what a command line starts: `train.py`, or a module."""
    return words[2] if words[1] == "-m" else words[1]


def shortened(line: str) -> str:
    """Return a documented command line, made quick."""
    line = line.replace("<run folder>", RUN_FOLDER).replace("$HOME", os.environ["HOME"])
    words = arguments(line)
    whole = any(word.startswith(("--help", "resume=")) for word in words)
    return shlex.join(words if whole else [*words, *SHORT.get(program(words), [])])


def copy_of_the_tree(folder: Path) -> Path:
    """Copy what a clone would have; runs of a document then write there."""
    kept = ("conf", "mocosfl", "train.py", "linear_probe.py")
    for name in kept:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder)
    return folder


def environment(tree: Path) -> dict[str, str]:
    """Return the environment of a shell in a copy of the tree, `python` being this one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(tree), "WANDB_MODE": "offline"}


def cifar10_of_noise(folder: Path, num_images: int) -> None:
    """Write a cache of CIFAR-10's form: commands that name it then need no download."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        images = generator.integers(0, 256, (num_images, 32, 32, 3), dtype=np.uint8)
        np.save(folder / f"{split}_images.npy", images)
        np.save(folder / f"{split}_labels.npy", np.arange(num_images) % 10)


def folder_of_pictures(folder: Path, num_classes: int) -> None:
    """Write eight pictures of each class."""
    generator = np.random.default_rng(0)
    for number in range(num_classes):
        of_class = folder / f"class_{number}"
        of_class.mkdir(parents=True)
        for index in range(8):
            pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(of_class / f"{index}.png")


def apply_diff(tree: Path, block: Block) -> None:
    """Make the changes of a diff whose hunks have no line numbers: each must fit exactly once."""
    for part in re.split(r"^--- .*\n(?=\+\+\+ )", block.text, flags=re.M)[1:]:
        heading, _, changes = part.partition("\n")
        file = tree / heading.removeprefix("+++ b/")
        for hunk in changes.split("@@\n")[1:]:
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] in " -")
            after = "".join(line[1:] for line in lines if line[0] in " +")
            text = file.read_text()
            assert text.count(before) == 1, f"{block.place}: does not fit {file.name}:\n{hunk}"
            file.write_text(text.replace(before, after))


def prepare_steps(tree: Path, page: Path) -> list[Step]:
    """Write the files that a page shows, and return what it has a reader run."""
    steps: list[Step] = []
    for block in (block for block in read_blocks(page) if not block.not_run):
        if block.file is not None:
            (tree / block.file).write_text(block.text)
        elif block.language == "diff":
            apply_diff(tree, block)
        elif block.language == "python":
            steps.append(("python", block.text.replace("<run folder>", RUN_FOLDER)))
        elif block.language == "sh":
            steps += [("command", shortened(line)) for line in shell_lines(block.text)]
    return steps


def steps_as_written(page: Path) -> list[Step]:
    """Return what a page has a reader run, all as it stands.

    Blocks of our commands alone run in the driver's process, others in a shell.
    """
    steps: list[Step] = []
    for block in (block for block in read_blocks(page) if not block.not_run):
        if block.language == "python":
            steps.append(("python", block.text))
        elif block.language == "sh":
            lines = list(shell_lines(block.text))
            ours = all(line.startswith("python ") and line[-1] != "&" for line in lines)
            steps += [("command", line) for line in lines] if ours else [("sh", block.text)]
    return steps


def run_steps(pages: list[list[Step]], tree: Path, *, timeout: float) -> str:
    """Run what pages have a reader run, in a copy of the tree; returns what was printed.

    Args:
        pages: steps of each.
        tree: where.
        timeout: seconds for all.
    """
    file = tree / "pages.json"
    file.write_text(json.dumps(pages))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "document_script.py"), str(file)],
        cwd=tree, env=environment(tree), timeout=timeout,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)  # some 90 s of one core that it has to itself
def test_commands_of_readme_and_how_tos_run(
    quick_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    tree = copy_of_the_tree(tmp_path / "tree")
    shutil.copytree(quick_run.path, tree / "multirun" / "quick")
    cifar10_of_noise(tree / "data" / "cifar10", 2000)
    folder_of_pictures(tmp_path / "home" / "birds", 20)
    for name, digit in zip(("tabby.jpg", "truck.png"), write_digits(tmp_path, 2), strict=True):
        Image.open(tmp_path / digit).save(tree / name)
    run_steps([prepare_steps(tree, page) for page in RUN_PAGES], tree, timeout=840)


@pytest.mark.slow
@pytest.mark.timeout(900)  # some 60 s of one core that it has to itself
def test_tutorial_runs_as_it_is_written(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path / "tree")
    printed = run_steps([steps_as_written(TUTORIAL)], tree, timeout=840)
    assert "0 finished, 2 skipped, 0 failed" in printed
    assert "exit code 143" in printed
    assert RunFolder(tree / "multirun" / "stopped").finished.is_file()
    assert (tree / "multirun" / "tutorial" / "report.html").is_file()


def test_driver_runs_all_steps_and_names_those_that_failed(tmp_path: Path) -> None:
    steps: list[Step] = [
        ("python", "found = 1"),
        ("python", "assert found == 2"),
        ("sh", "exit 3"),
        ("python", "raise SystemExit(4)"),
        ("python", "open('reached', 'w').close()"),
    ]
    with pytest.raises(AssertionError) as failed:
        run_steps([steps, [("python", "found")]], tmp_path, timeout=60)
    listed = str(failed.value).rsplit("failed:\n", 1)[1]
    for line in ("AssertionError(): assert", "'exit 3']): exit 3", "exit code 4", "NameError("):
        assert line in listed
    assert (tmp_path / "reached").is_file()


def test_blocks_that_do_not_run_are_known() -> None:
    found: dict[str, list[str]] = {}
    for name, page in zip(IDS, PAGES, strict=True):
        reasons = [block.not_run for block in read_blocks(page) if block.not_run is not None]
        if reasons:
            found[name] = reasons
    assert found.keys() == NOT_RUN.keys()
    for name, reasons in found.items():
        assert [r for r, known in zip(reasons, NOT_RUN[name], strict=True) if known not in r] == []


def documented(page: Path) -> list[str]:
    """Return the command lines of ours that a page names and no other test runs."""
    blocks = [block for block in read_blocks(page) if block.language in ("", "sh", "bash")]
    lines = [line.rstrip("& ") for block in blocks for line in shell_lines(block.text)]
    ours = [
        line for line in lines if re.match(r"python (train\.py|linear_probe\.py|-m mocosfl)", line)
    ]
    return [*([] if page in [*RUN_PAGES, TUTORIAL] else ours), *spoken_commands(page)]


def check_command(line: str) -> None:
    """Compose the configuration that a command line asks for, or have its own parser read it."""
    words = arguments(line)
    name, given = program(words), words[3 if words[1] == "-m" else 2 :]
    if name in CONFIGURED:
        given = with_folder(given) if name == "mocosfl.embed" else given
        asked = get_args_parser().parse_args(given)
        overrides = [o for o in asked.overrides if "..." not in o]
        overrides = jobs(overrides)[0] if asked.multirun else overrides  # of a sweep the first
        composed_with_hydra(overrides, CONFIGURED[name])
        return
    module = importlib.import_module(name)
    if not given:  # the command's name, in a sentence
        return
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    chosen = module._parsed(given)
    if "overrides" in chosen:
        composed_with_hydra(chosen.overrides)


# Composing takes a third of a second.
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_that_a_page_names_is_understood(page: Path) -> None:
    for line in documented(page):
        if "=<name>" not in line:  # of any experiment
            check_command(line)


@pytest.mark.parametrize(
    "line",
    [
        "python train.py clients=20 backbone.widht=8",
        "python train.py clients=20 --sweep",
        "python train.py clients 20",
        "python -m mocosfl.embed $HOME/birds checkpoint=<run folder> num_neighbours=5",
        "python -m mocosfl.export encoder <run folder> --wich best",
        "python -m mocosfl.export encoder <run folder> --format tflite",
        "python -m mocosfl.report sweep --folder reports",
        "python -m mocosfl.edge.deal dealt client.num_clients=4",
        "python -m mocosfl.edge.client --server localhost --data dealt/0 --certificates keys",
        "python -m mocosfl.edge.certificates keys --client=x",
        "python -m mocosfl.reports sweep",
    ],
)
def test_command_with_a_mistake_is_found(line: str) -> None:
    with pytest.raises((HydraException, SystemExit, ModuleNotFoundError)):
        check_command(line)


@pytest.mark.slow
def test_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-E", "-q", "-b", "html"]
    done = subprocess.run(
        [*sphinx, "-d", str(tmp_path / "trees"), str(ROOT / "docs"), str(tmp_path / "html")],
        env=environment(ROOT),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for page in (tmp_path / "html").glob("**/*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"([^\"]*)", page.read_text()
        )
        assert [name for name in loaded if re.match(r"(https?:)?//", name)] == [], page.name


def explained_metrics() -> set[str]:
    """Return the names in the tables of `docs/metrics.md` that a curve may have."""
    text = (ROOT / "docs" / "metrics.md").read_text().split("## In the probes")[0]
    return set(re.findall(r"^\| `([\w/]+)` \|", text, re.M))


def test_every_column_of_a_run_is_explained(quick_run: RunFolder) -> None:
    columns = set(read_metrics(quick_run.metrics)[0])
    assert columns - explained_metrics() == set()


def test_metrics_are_those_that_the_code_logs() -> None:
    code = "".join(file.read_text() for file in sorted((ROOT / "mocosfl").rglob("*.py")))
    groups = {name.partition("/")[0] for name in explained_metrics()} - {"step"}
    # A name that ends in a line is the beginning of several.
    named = set(re.findall(rf"\"((?:{'|'.join(sorted(groups))})/[a-z_0-9]*[a-z0-9])\"", code))
    no_curves = {"privacy/reconstructions"}  # an image
    assert named - explained_metrics() <= no_curves
    spread = {f"sync/divergence_{name}" for name in ("mean", "std", "least", "most")}
    made_of_parts = spread | {"lr/server", "lr/clients", "step"}
    assert explained_metrics() - named <= made_of_parts  # named where they are logged, in parts
