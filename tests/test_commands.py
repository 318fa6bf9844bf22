"""The two commands as a user types them; in this process where that shows the same."""

import json
import logging
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from omegaconf import OmegaConf
from PIL import Image

from mocosfl.config.hydra_setup import CONF
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_metrics
from tests.support.checkpoints import assert_same_results, read
from tests.support.configurations import QUICK
from tests.support.paths import ROOT

GROUPS = [folder.name for folder in CONF.iterdir() if folder.is_dir()]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Run a script of ours with arguments, the current folder being `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    root, state = logging.getLogger(), Singleton.get_state()
    handlers, level = root.handlers[:], root.level
    logger_levels = {
        name: logging.getLogger(name).level
        for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda")
    }

    def run(script: str, *arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", [str(ROOT / script), *arguments])
        GlobalHydra.instance().clear()
        code: object = 0
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as error:
            code = error.code or 0
        if isinstance(code, str):  # Python itself would print it
            sys.stderr.write(code)
            code = 1
        assert isinstance(code, int)
        return Outcome(code, *capfd.readouterr())

    yield run
    for handler in [h for h in root.handlers if h not in handlers]:  # Hydra's
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in logger_levels.items():
        logging.getLogger(name).setLevel(before)
    Singleton.set_state(state)


@pytest.fixture
def quick(data_dir: Path) -> list[str]:
    """Command line of the quick run."""
    return [f"data_dir={data_dir}", *QUICK]


def assert_says(outcome: Outcome, *parts: str) -> None:
    """Check that the command failed with words, not with a traceback."""
    assert outcome.code == 1
    for part in parts:
        assert part in outcome.err, f"{part!r} not in\n{outcome.err}"
    for noise in ("Traceback", "Error executing job", "full_key", "raised while", "HYDRA_FULL"):
        assert noise not in outcome.err + outcome.out, outcome.err


def change(folder: RunFolder, key: str, value: object) -> None:
    """Change a value in a run's config.yaml."""
    config = OmegaConf.load(folder.config)
    OmegaConf.update(config, key, value)
    OmegaConf.save(config, folder.config)


# ---- train.py: settings that cannot be

BAD_SETTINGS: dict[str, tuple[list[str], list[str]]] = {
    "cut beyond the network": (
        ["split.cut_layer=40"],
        ["split.cut_layer=40: ", "resnet18", "choose"],
    ),
    "more clients than images": (
        ["clients.num_clients=2000", "moco.queue_length=10000"],
        ["clients.num_clients=2000: only 1438 training images", "lower clients.num_clients"],
    ),
    "more classes a client than classes": (
        ["partition.classes_per_client=11"],
        ["partition.classes_per_client=11: ", "dataset.num_classes=10", "use at most"],
    ),
    "empty pool": (
        ["clients.participation=0.001"],
        ["clients.participation=0.001: leaves an empty pool of 100 clients; use at least 0.01"],
    ),
    "queue shorter than a step": (
        ["moco.queue_length=23"],
        ["moco.queue_length=23: shorter than the 24 keys of one step; use at least 24"],
    ),
    "private queues shorter than a step": (
        ["moco.feature_sharing=false", "moco.queue_length=399"],
        ["moco.queue_length=399: leaves 3 keys", "use at least 400"],
    ),
    "two mistakes": (["seed=-1", "moco.temperature=0"], ["seed=-1: ", "moco.temperature=0"]),
    "no clients": (
        ["clients=published", "clients.num_clients=0"],
        ["mocosfl: clients.num_clients=0: must be at least 1\n"],
    ),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_setting_ends_with_a_way_out(command: Command, quick: list[str], name: str):
    overrides, parts = BAD_SETTINGS[name]
    kept = [o for o in quick if o.split(".")[0] != "clients"] if name == "no clients" else quick
    assert_says(command("train.py", *kept, *overrides), *parts)


def test_unknown_data_set_lists_the_known_ones(command: Command):
    outcome = command("train.py", "dataset=nope")
    assert outcome.code == 1
    assert "Could not find 'dataset/nope'" in outcome.err
    assert "cifar10\n" in outcome.err
    assert "Traceback" not in outcome.err


def test_mistyped_key_is_named(command: Command):
    outcome = command("train.py", "moco.queue_lenght=5")
    assert outcome.code == 1
    assert "moco.queue_lenght" in outcome.err
    assert "Traceback" not in outcome.err


# ---- train.py: data that are not there, or broken


def test_missing_data_say_which_file_goes_where(command: Command, tmp_path: Path):
    outcome = command("train.py", "dataset=cifar10", "dataset.download=false", "data_dir=d")
    assert_says(
        outcome,
        "dataset.source=cifar10: ",
        "dataset.download=true",
        "d/raw/cifar-10-",
        "d/cifar10/train_images.npy (uint8, (N, 32, 32, 3))",
    )
    assert not (tmp_path / "d" / "cifar10").exists()


def test_truncated_cache_is_named(command: Command, quick: list[str], data_dir: Path):
    shutil.copytree(data_dir / "digits", "cut/digits")
    images = Path("cut/digits/train_images.npy")
    images.write_bytes(images.read_bytes()[:-1000])
    assert_says(
        command("train.py", *quick, "data_dir=cut"),
        "cut/digits/train_images.npy: truncated, ",
        "delete the folder",
    )


def test_picture_that_cannot_be_read_is_named(command: Command, quick: list[str]):
    for name in ("cat", "dog"):
        Path("pictures", name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (20, 16), (40 * number, 9, 9)).save(f"pictures/{name}/{number}.png")
    Path("pictures/cat/3.png").write_bytes(b"not a picture")
    own = ["dataset=image_folder", "dataset.path=pictures", "dataset.num_classes=2", "data_dir=d"]
    assert_says(
        command("train.py", *quick[2:], *own),
        "dataset.path: the picture ",
        "pictures/cat/3.png can't be read",
        "repair or remove the file",
    )
    assert not Path("d/image_folder").exists()


@pytest.mark.parametrize(
    ("shape", "dtype", "parts"),
    [
        ((50, 16, 16), "uint8", ["shape (50, 16, 16)", "grey images: save np.repeat("]),
        ((50, 3, 16, 16), "uint8", ["channels must come last", "transpose(0, 2, 3, 1)"]),
        ((50, 16, 20, 3), "uint8", ["must be square"]),
        ((50, 8, 8, 3), "uint8", ["dataset.image_size=16: ", "set dataset.image_size=8"]),
        ((49, 16, 16, 3), "uint8", ["train_labels.npy: shape (50,) beside 49 images"]),
        ((50, 16, 16, 3), "float32", ["its type is float32", "astype(np.uint8)"]),
    ],
    ids=str,
)
def test_users_arrays_of_odd_shapes_are_refused(
    command: Command, quick: list[str], shape: tuple[int, ...], dtype: str, parts: Sequence[str]
):
    Path("own").mkdir()
    np.save("own/train_images.npy", np.zeros(shape, dtype))
    np.save("own/train_labels.npy", np.arange(50) % 2)
    own = ["dataset=arrays", "dataset.path=own", "dataset.num_classes=2", "dataset.image_size=16"]
    assert_says(command("train.py", *quick[2:], *own), "own/train_", *parts)


def test_data_folder_that_cannot_be_written_is_named(command: Command, quick: list[str]):
    Path("file").touch()
    outcome = command("train.py", *quick, "data_dir=file/data")
    assert_says(outcome, "data_dir=file/data: can't be written", "choose another data_dir")


# ---- train.py: where it writes, and resume


def test_output_folder_that_cannot_be_written_is_named(command: Command, quick: list[str]):
    # Below a regular file, because permissions do not bind root.
    Path("file").touch()
    outcome = command("train.py", *quick, "output_dir=file/runs")
    assert_says(outcome, "output_dir: cannot write to ", "/file/runs", "choose another, as in")


def test_sweep_into_a_folder_that_cannot_be_written_is_named(command: Command, quick: list[str]):
    Path("file").touch()
    outcome = command("train.py", "-m", *quick, "output_dir=file/runs", "seed=1,2")
    assert_says(outcome, "output_dir: cannot write to ", "choose another, as in")


def test_folder_that_is_no_run_cannot_be_resumed(command: Command):
    outcome = command("train.py", "resume=nowhere")
    assert_says(outcome, "resume=nowhere: not a run folder, it has no config.yaml; name the folder")
    assert list(Path.cwd().iterdir()) == []  # and it was not made on the way


def test_resumed_run_takes_no_other_settings(command: Command, run_copy: RunFolder):
    before = run_copy.last.read_bytes()
    outcome = command("train.py", f"resume={run_copy.path}", "seed=3", "split=cut2")
    assert_says(outcome, f"resume={run_copy.path}: ", "leave out seed=3 split=cut2", "fresh run")
    assert run_copy.last.read_bytes() == before


def test_checkpoint_of_another_configuration_is_not_resumed(command: Command, run_copy: RunFolder):
    change(run_copy, "moco.temperature", 0.2)
    assert_says(
        command("train.py", f"resume={run_copy.path}"),
        "last.ckpt is of another configuration",
        "moco.temperature=0.2: the checkpoint was trained with 0.1",
        "put config.yaml back",
    )


@pytest.mark.parametrize("text", ["seed: [", "sede: 5\n", "seed: five\n"])
def test_configuration_that_is_not_readable_is_not_resumed(
    command: Command, run_copy: RunFolder, text: str
):
    run_copy.config.write_text(text)
    outcome = command("train.py", f"resume={run_copy.path}")
    assert outcome.code == 1
    assert "config.yaml: not a configuration of this version" in outcome.err
    assert "Traceback" not in outcome.err


def test_damaged_checkpoint_is_not_resumed(command: Command, run_copy: RunFolder):
    run_copy.last.write_bytes(run_copy.last.read_bytes()[:5000])
    assert_says(command("train.py", f"resume={run_copy.path}"), "last.ckpt: not a readable check")


def test_run_that_fails_stops_with_words(command: Command, quick: list[str]):
    outcome = command("train.py", *quick, "optimizer.server_lr=1e30", "trainer.max_steps=6")
    assert_says(outcome, "the loss is nan at step ", "Lower the learning rates")


# ---- train.py: what it does


def only_run(folder: Path = Path("multirun")) -> RunFolder:
    (run,) = folder.iterdir()
    return RunFolder(run)


def test_bare_number_chooses_the_clients(command: Command, quick: list[str], data_dir: Path):
    overrides = ["clients=5", "trainer.max_steps=1", "callbacks.knn_every_rounds=0"]
    kept = [o for o in quick if not o.startswith("clients.")]
    outcome = command("train.py", *kept, *overrides)
    assert outcome.code == 0, outcome.err
    config = only_run().load_config()
    assert (config.clients.num_clients, config.clients.batch_size) == (5, 20)
    text = only_run().config.read_text()
    assert "${" not in text
    assert "???" not in text
    assert config.data_dir == str(data_dir)
    assert "multirun" in config.run_dir
    assert "5, pool of 5 a round" in outcome.out + outcome.err  # the plan


def test_finished_run_can_be_resumed_by_its_folder(command: Command, run_copy: RunFolder):
    before = run_copy.last.read_bytes()
    outcome = command("train.py", f"resume={run_copy.path}")
    assert outcome.code == 0, outcome.err
    assert run_copy.last.read_bytes() == before


def test_resumed_run_finds_data_that_have_moved(
    command: Command, run_copy: RunFolder, data_dir: Path
):
    shutil.copytree(data_dir / "digits", "elsewhere/digits")
    change(run_copy, "data_dir", "gone")
    outcome = command("train.py", f"resume={run_copy.path}", "data_dir=elsewhere")
    assert outcome.code == 0, outcome.err
    assert not Path("gone").exists()


@pytest.mark.slow
def test_sweep_goes_on_behind_a_job_that_fails_and_names_it(command: Command, quick: list[str]):
    short = ["trainer.max_steps=1", "callbacks.knn_every_rounds=0", "output_dir=runs"]
    sweep = ["train.py", "-m", *quick, *short, "moco.queue_length=23,400"]
    outcome = command(*sweep)
    (failed,) = Path("runs/sweep").glob("*/failed.txt")
    assert_says(
        outcome, "moco.queue_length=23: shorter", f"mocosfl: failed: {failed.parent.resolve()}: "
    )
    assert "1 finished, 0 skipped, 1 failed" in outcome.out
    (done,) = Path("runs/sweep").glob("*/finished.json")
    assert str(done.parent) not in outcome.err
    again = command(*sweep)
    assert_says(again, "moco.queue_length=23: shorter")
    assert "finished already, skipped: " in again.out
    assert "0 finished, 1 skipped, 1 failed" in again.out


@pytest.mark.slow
def test_jobs_of_a_swept_experiment_are_in_the_folder_that_their_sweep_knows(
    command: Command, quick: list[str]
):
    short = ["trainer.max_steps=1", "callbacks.knn_every_rounds=0", "output_dir=runs"]
    outcome = command("train.py", "-m", *quick, *short, "experiment=none,cut_depth", "split=cut1")
    assert outcome.code == 0, outcome.err
    assert [path.name for path in Path("runs").iterdir()] == ["sweep_none_cut_depth"]
    assert len(list(Path("runs/sweep_none_cut_depth").glob("*/finished.json"))) == 2
    assert "2 finished, 0 skipped, 0 failed" in outcome.out


def test_sweep_of_runs_to_resume_is_refused_with_words(command: Command):
    assert_says(command("train.py", "-m", "resume=a,b"), "resume=a,b: a sweep goes on by itself")
    assert not Path("multirun").exists()


def test_help_names_every_group_and_both_ways_to_run(command: Command):
    outcome = command("train.py", "--help")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    for group in GROUPS:
        assert any(line.startswith(f"{group}: ") for line in lines), group
    assert "python train.py -m clients=5,100,1000 split=cut1,cut2" in outcome.out
    assert "resume=" in outcome.out
    assert "linear_probe.py checkpoint=" in outcome.out
    assert "  num_clients: 100" in lines


def test_help_of_the_probe_shows_its_keys_and_not_the_groups_of_training(command: Command):
    outcome = command("linear_probe.py", "--help")
    assert outcome.code == 0
    assert "python linear_probe.py checkpoint=multirun/<run folder>" in outcome.out
    assert "knn_num_neighbors: null" in outcome.out
    assert "backbone: " not in outcome.out


# ---- linear_probe.py

PROBE = ["num_epochs=2", "hidden_dim=8", "knn_num_neighbors=10", "wandb=false", "accelerator=cpu",
         "embedding_map_images=10"]  # fmt: skip


def test_run_is_probed(command: Command, run_copy: RunFolder):
    outcome = command("linear_probe.py", f"checkpoint={run_copy.path}", *PROBE)
    assert outcome.code == 0, outcome.err
    for words in ("21 training steps", "final", "best", "no weight of the encoder changed"):
        assert words in outcome.out
    results = json.loads((run_copy.path / "probe" / "results.json").read_text())
    assert results["encoder_step"] == 21
    assert not (run_copy.path / "wandb").exists()


def test_file_is_probed_into_a_chosen_folder(command: Command, quick_run: RunFolder):
    outcome = command("linear_probe.py", f"checkpoint={quick_run.best}", *PROBE, "output_dir=out")
    assert outcome.code == 0, outcome.err
    assert sorted(file.name for file in Path("out").iterdir()) == [
        "embedding_map.csv",
        "embedding_map.png",
        "metrics.csv",
        "per_class.png",
        "results.json",
    ]


def test_untrained_encoder_of_a_run_is_probed(command: Command, run_copy: RunFolder):
    outcome = command("linear_probe.py", "checkpoint=none", f"run={run_copy.path}", *PROBE)
    assert outcome.code == 0, outcome.err
    results = json.loads((run_copy.path / "probe_untrained" / "results.json").read_text())
    assert (results["encoder"], results["encoder_step"]) == ("untrained", 0)


def test_probe_of_nothing_asks_for_a_checkpoint(command: Command):
    assert_says(command("linear_probe.py"), "checkpoint=???: name what to probe, checkpoint=<run")


def test_probe_of_no_checkpoint_asks_for_a_run(command: Command):
    assert_says(command("linear_probe.py", "checkpoint=none"), "checkpoint=none: name the run")
    outcome = command("linear_probe.py", "checkpoint=none", "run=nowhere")
    assert_says(outcome, "run=nowhere: not a run folder, it has no config.yaml; name the folder")


def test_untrained_encoder_of_a_damaged_configuration_is_refused(
    command: Command, run_copy: RunFolder
):
    text = run_copy.config.read_text()
    run_copy.config.write_text(text.replace("source: digits", "source: mnist", 1))
    outcome = command("linear_probe.py", "checkpoint=none", f"run={run_copy.path}")
    assert_says(outcome, "dataset.source=mnist: unknown")


def test_probe_of_a_folder_without_checkpoint_says_so(command: Command):
    outcome = command("linear_probe.py", "checkpoint=nowhere")
    assert_says(outcome, "checkpoint=nowhere: no checkpoints/last.ckpt there; name a .ckpt file")


@pytest.mark.parametrize("damage", ["cut off", "foreign"])
def test_probe_of_a_damaged_or_foreign_file_is_refused(
    command: Command, quick_run: RunFolder, damage: str
):
    if damage == "foreign":
        torch.save({"model": torch.zeros(2)}, "x.ckpt")
    else:
        Path("x.ckpt").write_bytes(quick_run.last.read_bytes()[:9000])
    way_out = {"foreign": "not written by mocosfl; name", "cut off": "copy it again"}
    outcome = command("linear_probe.py", "checkpoint=x.ckpt", *PROBE, "output_dir=out")
    assert_says(outcome, "checkpoint=x.ckpt: not ", way_out[damage])


def test_probe_of_a_lone_file_asks_where_to_write(command: Command, quick_run: RunFolder):
    shutil.copy(quick_run.best, "x.ckpt")
    outcome = command("linear_probe.py", "checkpoint=x.ckpt", *PROBE)
    assert_says(outcome, "checkpoint=x.ckpt: is in no run folder; say where to write, output_dir=")


def test_probe_without_test_images_says_what_is_missing(
    command: Command, run_copy: RunFolder, data_dir: Path
):
    Path("own").mkdir()
    for part in ("images", "labels"):
        shutil.copy(data_dir / "digits" / f"train_{part}.npy", "own")
    for key, value in (("source", "arrays"), ("path", "own"), ("test_fraction", 0.0)):
        change(run_copy, f"dataset.{key}", value)
    outcome = command("linear_probe.py", "checkpoint=none", f"run={run_copy.path}", *PROBE)
    assert_says(outcome, "dataset.name=digits: has no test images", "test_images.npy")


def test_probe_into_a_folder_that_cannot_be_written_is_refused_before_the_work(
    command: Command, quick_run: RunFolder
):
    Path("file").touch()
    outcome = command(
        "linear_probe.py", f"checkpoint={quick_run.path}", *PROBE, "output_dir=file/out"
    )
    assert_says(outcome, "output_dir: cannot write to ", "/file/out", "choose another")
    assert "encoder:" not in outcome.out


def test_probe_with_too_many_neighbours_names_its_own_key(command: Command, quick_run: RunFolder):
    outcome = command(
        "linear_probe.py", f"checkpoint={quick_run.path}", *PROBE, "knn_num_neighbors=2000",
        "output_dir=out",
    )  # fmt: skip
    assert_says(outcome, "knn_num_neighbors=2000: ", "1438")


# ---- as processes of their own


def script(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / arguments[0]), *arguments[1:]]


@pytest.mark.slow
def test_sweep_leaves_four_runs_with_their_own_logs(data_dir: Path, tmp_path: Path):
    done = subprocess.run(
        script("train.py", "-m", "clients=5,20", "split=cut1,cut2", "debug=short",
               f"data_dir={data_dir}", "trainer.accelerator=cpu", "trainer.max_steps=4"),
        cwd=tmp_path, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    runs = [RunFolder(path.parent) for path in sweep.glob("*/config.yaml")]
    settings = [
        (config.clients.num_clients, config.split.cut_layer)
        for config in (run.load_config() for run in runs)
    ]
    assert sorted(settings) == [(5, 1), (5, 2), (20, 1), (20, 2)]
    for run in runs:
        assert tmp_path / run.load_config().run_dir == run.path
        assert "${" not in run.config.read_text()
        assert [row["step"] for row in read_metrics(run.metrics)] == ["0", "1", "2", "3"]
        assert read(run.last)["global_step"] == 4
        assert (run.path / "train.log").read_text()
        names = {path.name.split("-")[3] for path in run.path.glob("wandb/offline-run-*")}
        assert names == {run.wandb_id.read_text()}
    assert len({run.wandb_id.read_text() for run in runs}) == 4


@pytest.mark.slow
def test_run_killed_at_three_random_steps_ends_as_if_it_never_was(
    data_dir: Path, tiny_overrides: list[str], tmp_path: Path
):
    overrides = [*tiny_overrides, "callbacks.checkpoint_every_steps=5"]  # of 33 steps, 11 a round
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")

    def start(*arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            script("train.py", *arguments), cwd=tmp_path,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    assert start(*overrides, f"hydra.run.dir={whole.path}").wait() == 0
    draw = random.Random(time.time_ns())
    arguments, moments = [*overrides, f"hydra.run.dir={killed.path}"], []
    for low, high in ((6, 9), (13, 19), (24, 29)):  # in the middle of each round
        step = draw.randint(low, high)
        process = start(*arguments)
        while process.poll() is None and f"\n{step}," not in read_text(killed.metrics):
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.05))  # anywhere within a step
        process.kill()
        assert process.wait() == -signal.SIGKILL
        moments.append(int(read_metrics(killed.metrics)[-1]["step"]))
        assert 5 <= read(killed.last)["global_step"] <= moments[-1] + 1 < 33
        arguments = [f"resume={killed.path}"]
    assert start(*arguments).wait() == 0
    assert_same_results(killed, whole)


def read_text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
