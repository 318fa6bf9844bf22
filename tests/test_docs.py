"""The documentation: what it says to type works, and the site is built without a warning.

Marks in a document (comments, which no reader sees):

    <!-- not run: REASON -->   the block below can't run here
    <!-- file: NAME -->        the block below is the content of that file
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from documented_commands import RUN_FOLDER
from documents import ROOT, Block, arguments, read_blocks, shell_lines, spoken_commands
from PIL import Image
from test_experiments import composed, jobs

from mocosfl.metrics_log import read_metrics
from mocosfl.run_folder import RunFolder

README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGES = [README, ROOT / "multirun" / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
# These are run, not only composed.
RUN_PAGES = [README, ROOT / "docs" / "methods.md", *sorted((ROOT / "docs" / "howto").glob("*.md"))]

# The configuration of a Hydra program, by what is typed behind `python`.
CONFIGURED = {
    "train.py": "config",
    "linear_probe.py": "linear_probe",
    "mocosfl.expert": "expert",
    "mocosfl.attack": "attack",
    "mocosfl.edge.server": "edge_server",
    "mocosfl.overhead": "config",
}

# Blocks that can't run here, by the first words of their reason.
NOT_RUN = {
    "README.md": ["they install", "the tests run"],
    "docs/tutorial.md": ["the tree"],
    "docs/howto/cluster.md": ["needs Slurm"],
}

# What makes a command of a document quick. It says nothing of the keys that a document is about,
# but for the length of a run and the size of its network.
SHORT = {
    "train.py": [
        "backbone.width=4",
        "moco.queue_length=2000",
        "moco.projector_hidden=16",
        "moco.projector_dim=8",
        "trainer.accelerator=cpu",
        "trainer.max_steps=2",
        "trainer.log_every_steps=1",
        "trainer.view_block_images=200",
        "trainer.num_threads=1",
        "trainer.progress_bar=false",
        "logger=csv",
        "callbacks.knn_every_rounds=0",
        "callbacks.pictures=false",
        "callbacks.measure_client_memory=false",
        "callbacks.probe_at_end=false",
    ],
    "linear_probe.py": ["num_epochs=1", "wandb=false"],
    "mocosfl.overhead": ["callbacks.measure_client_memory=false"],
    "mocosfl.embed": ["num_neighbors=2", "num_queries=2"],
}


def program(words: list[str]) -> str:
    """Return what a command line starts: `train.py`, or a module."""
    return words[2] if words[1] == "-m" else words[1]


def shortened(line: str) -> list[str]:
    """Return the words of a documented command line, made quick."""
    line = line.replace("<run folder>", RUN_FOLDER).replace("$HOME", os.environ["HOME"])
    words = arguments(line)
    whole = any(word.startswith(("--help", "resume=")) for word in words)
    return words if whole else [*words, *SHORT.get(program(words), [])]


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


def prepare_steps(tree: Path, pages: list[Path]) -> list[list[str] | str]:
    """Write the files that pages show, and return what they have a reader run."""
    steps: list[list[str] | str] = []
    for block in (block for page in pages for block in read_blocks(page) if not block.not_run):
        if block.file is not None:
            (tree / block.file).write_text(block.text)
        elif block.language == "diff":
            apply_diff(tree, block)
        elif block.language == "python":
            steps.append(block.text)
        elif block.language == "sh":
            steps += [shortened(line) for line in shell_lines(block.text)]
    return steps


@pytest.mark.slow
@pytest.mark.timeout(900)  # some 90 s of one core that it has to itself
def test_commands_of_readme_and_how_tos_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    tree = copy_of_the_tree(tmp_path / "tree")
    cifar10_of_noise(tree / "data" / "cifar10", 2000)
    folder_of_pictures(tmp_path / "home" / "birds", 20)
    steps = tmp_path / "steps.json"
    steps.write_text(json.dumps(prepare_steps(tree, RUN_PAGES)))
    driver = [sys.executable, str(ROOT / "tests" / "documented_commands.py"), str(steps)]
    done = subprocess.run(
        driver, cwd=tree, env=environment(tree), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.timeout(900)  # some 90 s of one core that it has to itself
def test_tutorial_runs_as_it_is_written(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path / "tree")
    script = "set -e\n"
    for number, block in enumerate(read_blocks(TUTORIAL)):
        if block.not_run:
            continue
        if block.language == "python":
            (tree / f"block_{number}.py").write_text(block.text)
            script += f"python block_{number}.py\n"
        elif block.language == "sh":
            script += block.text
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tree,
        env=environment(tree),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "0 finished, 2 skipped, 0 failed" in done.stdout + done.stderr
    assert RunFolder(tree / "multirun" / "killed").finished.is_file()
    assert (tree / "multirun" / "tutorial" / "report.html").is_file()


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


# Composing takes a third of a second.
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_that_a_page_names_composes(page: Path) -> None:
    for line in documented(page):
        words = arguments(line)
        name = program(words)
        assert name.endswith(".py") or importlib.util.find_spec(name), line
        if "=<name>" in line:
            continue  # of any experiment
        overrides = [word for word in words[2:] if re.match(r"[+~]*[\w./@]+=", word)]
        if "-m" in words[3:] or words[1:3] == ["train.py", "-m"]:
            overrides = jobs(overrides)[0]  # of a sweep the first
        if name in CONFIGURED:
            composed([o for o in overrides if "..." not in o], CONFIGURED[name])


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
