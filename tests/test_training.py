import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkpoints import assert_same_results, break_off, curves, differences, read
from conftest import Compose
from torch import nn

from mocosfl.data import federated_data
from mocosfl.data.federated_data import FederatedData
from mocosfl.data.partition import Partition
from mocosfl.evaluation.knn import knn_top1, leave_one_out_top1
from mocosfl.federation.server import Server, ServerOutput, SmashedStep
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.metrics import read_curves
from mocosfl.system.errors import TrainingStopped
from mocosfl.training.build import build_module
from mocosfl.training.callbacks.alarm import Alarm
from mocosfl.training.callbacks.checkpoints import AtomicCheckpoints, LastCheckpoint, save_if_finite
from mocosfl.training.callbacks.curves import Curves
from mocosfl.training.callbacks.knn_monitor import KnnMonitor
from mocosfl.training.module import MocoSFL
from mocosfl.training.run import train

STEPS, STEPS_PER_ROUND = 21, 7  # of the quick run, which saves every 2 steps
PNG = b"\x89PNG"


# ---- resume

VARIANTS: dict[str, list[str]] = {
    "bank": [],
    "stateless": ["clients.client_state=stateless"],
    "monacosfl": ["method=monacosfl"],
    "frozen": ["optimizer.client_lr=0"],
    "private queues": ["moco.feature_sharing=false"],
    "whole networks": ["method=fl_moco"],
    "supervised": ["method=sfl_supervised"],
    "unequal, missing, divergence-aware": [
        "heterogeneity=rich_poor",
        "heterogeneity.rich_batch_factor=3",
        "clients.dropout_probability=0.3",
        "averaging=divergence_aware",
        "clients.num_rounds=4",
    ],
}


IN_FAST_SUITE = ("bank",)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, marks=[] if variant in IN_FAST_SUITE else pytest.mark.slow)
        for variant in VARIANTS
    ],
)
def test_run_broken_off_ends_as_if_it_never_was(
    variant: str,
    compose_quick: Compose,
    quick_run: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    folder, whole = RunFolder(tmp_path / "run"), quick_run
    config = compose_quick(VARIANTS[variant])
    if variant != "bank":  # which is the quick run as it is
        whole, config.trainer.max_steps = RunFolder(tmp_path / "whole"), 16
        train(config, whole, resume=False)
    # Behind the curves: a step after a checkpoint, so that a logged step is replayed. The second
    # and third checkpoints are in the middle and at the very end of a round.
    moments = ((5, Curves), (8, LastCheckpoint), (15, Curves))
    for step, behind in moments:
        with monkeypatch.context() as patch:
            break_off(patch, step, behind=behind)
            with pytest.raises(SystemExit, match="broken off"):
                train(config, folder, resume=step > 5)
        assert read(folder.last)["global_step"] == step // 2 * 2
        assert len(curves(folder)) == step
    train(config, folder, resume=True)
    assert read(folder.last)["global_step"] == (STEPS if variant == "bank" else 16)
    assert_same_results(folder, whole)


def test_comparison_sees_one_changed_client_in_the_bank(quick_run: RunFolder):
    state = read(quick_run.last)
    changed = read(quick_run.last)
    bank = changed["state_dict"]["federation.clients._extra_state"]["bank"]
    name, (_, rows) = next((n, r) for n, r in bank["momentum"].items() if r[1] is not None)
    rows[50].add_(1e-3)
    assert differences(state, changed) == [
        f"/state_dict/federation.clients._extra_state/bank/momentum/{name}/1"
    ]


def test_resuming_a_finished_run_changes_nothing(
    compose_quick: Compose, quick_run: RunFolder, tmp_path: Path
):
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(quick_run.path, folder.path)
    train(folder.load_config(), folder, resume=True)
    files = [f.relative_to(folder.path) for f in folder.path.rglob("[!.]*") if f.is_file()]
    assert len(files) == 8
    for file in files:
        assert (folder.path / file).read_bytes() == (quick_run.path / file).read_bytes(), file


def test_run_stopped_before_its_first_checkpoint_resumes_from_the_start(
    compose_quick: Compose, quick_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, config = RunFolder(tmp_path / "run"), compose_quick(["trainer.max_steps=3"])
    with monkeypatch.context() as patch:
        break_off(patch, 1, behind=Curves)
        with pytest.raises(SystemExit):
            train(config, folder, resume=False)
    assert len(curves(folder)) == 1
    assert not folder.last.exists()
    train(config, folder, resume=True)
    losses, whole = (read_curves(run.metrics)["train/loss"] for run in (folder, quick_run))
    assert losses == (whole[0][:3], whole[1][:3])


def test_data_set_that_changed_meanwhile_is_noticed(quick_run: RunFolder, tmp_path: Path):
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(quick_run.path, folder.path)
    partition = Partition.load(folder.partition)
    Partition(partition.order[::-1].copy(), partition.offsets).save(folder.partition)
    with pytest.raises(ValueError, match=r"resume=.*: the clients would hold other images"):
        train(folder.load_config(), folder, resume=True)


def test_two_processes_do_not_run_in_one_folder(compose_quick: Compose, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked(), pytest.raises(ValueError, match="another process is running in this"):
        train(compose_quick([]), folder, resume=False)
    assert not folder.config.exists()


def test_more_steps_than_the_rounds_have_are_refused(compose_quick: Compose, tmp_path: Path):
    config = compose_quick(["trainer.max_steps=22"])
    with pytest.raises(ValueError, match=r"trainer\.max_steps=22: the run has only 21 steps"):
        train(config, RunFolder(tmp_path / "run"), resume=False)


def test_more_steps_to_overfit_than_a_round_has_are_refused(compose_quick: Compose, tmp_path: Path):
    config = compose_quick(["trainer.overfit_steps=8"])
    with pytest.raises(ValueError, match="overfit_steps=8: a round has only 7 steps"):
        train(config, RunFolder(tmp_path / "run"), resume=False)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("kind", ["simple", pytest.param("advanced", marks=pytest.mark.slow)])
def test_profile_tells_of_the_steps(kind: str, compose_quick: Compose, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    train(compose_quick([f"trainer.profiler={kind}", "trainer.max_steps=2"]), folder, resume=False)
    assert "training_step" in (folder.profile / f"fit-{kind}.txt").read_text()


def test_fresh_run_does_not_write_over_another(compose_quick: Compose, quick_run: RunFolder):
    with pytest.raises(ValueError, match=r"run_dir=.*: holds a run already; continue it with"):
        train(compose_quick([]), quick_run, resume=False)


# ---- what a run leaves


def test_run_folder_holds_configuration_plan_and_partition(
    compose_quick: Compose, quick_run: RunFolder
):
    expected = compose_quick([])
    expected.run_dir = str(quick_run.path)
    assert quick_run.load_config() == expected
    assert "${" not in quick_run.config.read_text()
    assert "3 of 7 steps = 21 steps" in quick_run.plan.read_text()
    partition, dealt = Partition.load(quick_run.partition), FederatedData(expected).partition
    assert partition.num_clients == 100
    assert all((partition.client(i) == dealt.client(i)).all() for i in range(100))
    assert not quick_run.pictures.exists()


def test_every_step_is_logged_and_knn_at_the_end_of_each_round(quick_run: RunFolder):
    logged = read_curves(quick_run.metrics)
    every_step = [float(step) for step in range(STEPS)]
    for name in ("train/loss", "train/contrast_accuracy", "lr/server", "lr/clients"):
        assert logged[name][0] == every_step
    assert logged["val/knn_top1"][0] == [6, 13, 20]
    rounds, images = (logged[f"progress/{name}"][1] for name in ("rounds", "images_seen"))
    assert rounds == pytest.approx([step / 7 for step in range(1, STEPS + 1)])
    assert images == [12 * step for step in range(1, STEPS + 1)]  # 6 clients with 2 images
    cosine = [0.06 * (1 + math.cos(math.pi * r / 3)) / 2 for r in range(3) for _ in range(7)]
    assert logged["lr/clients"][1] == pytest.approx(cosine)


def test_pictures_are_drawn_where_they_are_wanted(compose_quick: Compose, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    train(compose_quick(["callbacks.pictures=true", "trainer.max_steps=4"]), folder, resume=False)
    drawn = sorted(folder.pictures.iterdir())
    names = ["curves.png", "divergence.png", "partition.png", "views.png"]
    assert [file.name for file in drawn] == names
    assert all(file.read_bytes()[:4] == PNG for file in drawn)


def test_run_in_half_precision_trains(compose_quick: Compose, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    module = train(compose_quick(["trainer=bf16", "trainer.accelerator=cpu",
                                  "trainer.max_steps=2"]), folder, resume=False)  # fmt: skip
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in module.parameters())


# ---- alarms


def test_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    compose_quick: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    good, calls = Server.forward, []

    def diverging(self: Server, step: SmashedStep) -> ServerOutput:
        output = good(self, step)
        calls.append(1)
        factor = float("nan") if len(calls) >= 6 else 1.0
        return output._replace(loss=output.loss * factor)

    monkeypatch.setattr(Server, "forward", diverging)
    folder = RunFolder(tmp_path / "run")
    # NaN from step 6; checkpoints are due at steps 6 and 8, the alarm looks at step 10.
    config = compose_quick(["trainer.log_every_steps=10", "callbacks.knn_every_rounds=0"])
    with pytest.raises(TrainingStopped, match=r"loss is nan at step 10: .*optimizer\.server_lr"):
        train(config, folder, resume=False)
    checkpoint = read(folder.last)
    assert checkpoint["global_step"] == 4
    tensors = [t for t in checkpoint["state_dict"].values() if isinstance(t, torch.Tensor)]
    assert all(t.isfinite().all() for t in tensors)


@pytest.fixture
def module(compose_quick: Compose) -> MocoSFL:
    return build_module(compose_quick([]), STEPS_PER_ROUND)


def look(alarm: Alarm, module: MocoSFL, step: int, *, loss: float, std: float, end: int = 99):
    """Show a step to the alarm."""
    values = (torch.tensor(value) for value in (loss, 0.5, std))
    module.last_output = ServerOutput(*values)
    trainer: Any = SimpleNamespace(global_step=step, max_steps=end)
    alarm.on_train_batch_end(trainer, module, None, None, step - 1)


def make_alarm(window_steps: int = 20) -> Alarm:
    return Alarm(every_steps=5, window_steps=window_steps, loss_margin=0.01, min_std=0.01)


HEALTHY = {"loss": 8.0, "std": 0.5}
COLLAPSED = [{"loss": 8.0, "std": 0.001}, {"loss": 2 * math.log(401) + 0.015, "std": 0.5}]


def test_uniform_loss_is_that_of_embeddings_that_tell_nothing(module: MocoSFL):
    assert module.uniform_loss == pytest.approx(2 * math.log(401))  # both sides, 400 keys


@pytest.mark.parametrize("collapsed", COLLAPSED, ids=["no spread", "stuck loss"])
def test_collapse_stops_after_the_window_and_not_before(
    module: MocoSFL, collapsed: dict[str, float]
):
    alarm = make_alarm()
    look(alarm, module, 5, **HEALTHY)
    for step in range(10, 30):
        look(alarm, module, step, **collapsed)
    with pytest.raises(TrainingStopped, match=r"collapsed: for 20 .*window_steps=0"):
        look(alarm, module, 30, **collapsed)


def test_one_healthy_step_calms_the_alarm(module: MocoSFL):
    alarm = make_alarm()
    for step in range(5, 25, 5):
        look(alarm, module, step, **COLLAPSED[0])
    look(alarm, module, 25, **HEALTHY)
    for step in range(30, 50, 5):
        look(alarm, module, step, **COLLAPSED[0])
    with pytest.raises(TrainingStopped):
        look(alarm, module, 50, **COLLAPSED[0])


def test_loss_beyond_the_margin_is_not_stuck(module: MocoSFL):
    alarm = make_alarm(window_steps=5)
    for step in (5, 10, 15):
        look(alarm, module, step, loss=2 * math.log(401) + 0.021, std=0.5)


def test_window_of_zero_turns_the_collapse_alarm_off_and_no_other(module: MocoSFL):
    alarm = make_alarm(window_steps=0)
    for step in range(5, 500, 5):
        look(alarm, module, step, **COLLAPSED[0])
    with pytest.raises(TrainingStopped, match="loss is inf"):
        look(alarm, module, 500, loss=math.inf, std=0.5)


def test_alarm_looks_at_the_last_step_of_the_run(module: MocoSFL):
    alarm = make_alarm()
    look(alarm, module, 7, loss=math.nan, std=0.5)
    with pytest.raises(TrainingStopped):
        look(alarm, module, 7, loss=math.nan, std=0.5, end=7)


def test_alarm_goes_on_counting_after_a_resume(module: MocoSFL):
    before, after = make_alarm(), make_alarm()
    look(before, module, 5, **COLLAPSED[0])
    after.load_state_dict(before.state_dict())
    look(after, module, 20, **COLLAPSED[0])
    with pytest.raises(TrainingStopped, match="for 20 steps"):
        look(after, module, 25, **COLLAPSED[0])


# ---- kNN monitor


def features_by_hand(encoder: nn.Module, data: FederatedData, rows: Any) -> torch.Tensor:
    """Run the encoder over training images of the digits, one at a time."""
    config = data.config.dataset
    images = torch.tensor(data.dataset.train.images[rows]).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(list(v))[:, None, None] for v in (config.mean, config.std))
    with torch.no_grad():
        return torch.cat([encoder.eval()(image[None]) for image in (images - mean) / std])


@pytest.mark.parametrize("features", ["backbone", "projection"])
@pytest.mark.parametrize("held_out", [0, 0.1])
def test_monitor_measures_knn_of_the_chosen_features_and_images(
    held_out: float, features: str, compose_quick: Compose, tmp_path: Path
):
    fraction = f"callbacks.knn_held_out_fraction={held_out}"
    config = compose_quick([fraction, f"callbacks.knn_features={features}"])
    data, module = FederatedData(config), build_module(config, STEPS_PER_ROUND)
    encoder = nn.Sequential(*module.federation.encoder())
    if features == "projection":
        encoder.append(module.federation.server.projector)
    bank, queries = data.monitor
    labels = torch.tensor(data.dataset.train.labels)
    settings = {"num_neighbors": 5, "temperature": 0.1, "num_classes": 10}
    bank_features = features_by_hand(encoder, data, bank)
    if held_out == 0:
        assert queries is None
        expected = leave_one_out_top1(bank_features, labels[bank], **settings)
    else:
        assert queries is not None
        query_features = features_by_hand(encoder, data, queries)
        expected = knn_top1(query_features, labels[queries], bank_features, labels[bank],
                            **settings)  # fmt: skip
    measured = KnnMonitor(config, tmp_path / "best.ckpt").measure(data, module)
    assert measured == pytest.approx(expected, abs=0.02)  # an image of 60 may fall either way
    assert 0 < measured < 1


def test_best_checkpoint_is_that_of_the_best_round(
    compose_quick: Compose, module: MocoSFL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scores, saved = iter([0.3, 0.6, 0.6, 0.5]), []

    def trainer(step: int) -> Any:
        return SimpleNamespace(
            global_step=step,
            max_steps=25,
            datamodule=SimpleNamespace(data=None),
            lightning_module=module,
            loggers=[],
            save_checkpoint=lambda path, weights_only: saved.append((step, path, weights_only)),
        )

    monkeypatch.setattr(KnnMonitor, "measure", lambda *_: next(scores))
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    best = tmp_path / "best.ckpt"
    best.touch()
    monitor = KnnMonitor(compose_quick([]), best)
    for step in range(1, 26):  # rounds end at 7, 14 and 21, the run at 25
        monitor.on_train_batch_end(trainer(step), module, None, None, step - 1)
    assert saved == [(7, best, True), (14, best, True)]
    assert next(scores, None) is None
    resumed = KnnMonitor(compose_quick([]), best)
    resumed.load_state_dict(monitor.state_dict())
    assert resumed.best_top1 == 0.6


def test_best_checkpoint_in_a_run_is_the_one_with_the_highest_logged_knn(quick_run: RunFolder):
    steps, values = read_curves(quick_run.metrics)["val/knn_top1"]
    best = steps[values.index(max(values))]
    checkpoint = read(quick_run.best)
    assert checkpoint["global_step"] == best + 1
    assert "optimizer_states" not in checkpoint


def test_test_images_are_never_looked_at(
    compose_quick: Compose, quick_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    load: Callable[..., Any] = federated_data.load_dataset
    monkeypatch.setattr(federated_data, "load_dataset", lambda *a: load(*a)._replace(test=None))
    folder = RunFolder(tmp_path / "run")
    train(compose_quick([f"trainer.max_steps={STEPS_PER_ROUND}"]), folder, resume=False)
    assert curves(folder) == curves(quick_run)[:STEPS_PER_ROUND]
    assert "val/knn_top1" in curves(folder)[-1]


def test_held_out_images_run_through_the_whole_training(compose_quick: Compose, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    config = compose_quick(["callbacks.knn_held_out_fraction=0.1", "trainer.max_steps=1"])
    train(config, folder, resume=False)
    held_out = FederatedData(config).monitor.queries
    dealt = json.loads(folder.partition.read_text())
    assert held_out is not None
    assert len(held_out) == 60
    assert not set(held_out.tolist()) & set(Partition.load(folder.partition).order.tolist())
    assert dealt


# ---- checkpoints


def test_crash_while_a_checkpoint_is_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, writer = tmp_path / "last.ckpt", AtomicCheckpoints()
    writer.save_checkpoint({"step": 1}, path)

    def crash(checkpoint: Any, file: Any) -> None:
        file.write(b"half of")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", crash)
        with pytest.raises(KeyboardInterrupt):
            writer.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    writer.save_checkpoint({"step": 3}, path)
    assert torch.load(path, weights_only=True) == {"step": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    ("every_steps", "every_minutes", "saved"),
    [(4, 1000, [4, 8, 10]), (1000, 1000, [10]), (1000, 2, [2, 4, 6, 8, 10])],
)
def test_checkpoints_come_by_steps_or_minutes_and_at_the_end(
    module: MocoSFL,
    monkeypatch: pytest.MonkeyPatch,
    every_steps: int,
    every_minutes: float,
    saved: list[int],
):
    clock = [0.0]
    monkeypatch.setattr("mocosfl.training.callbacks.checkpoints.time.monotonic", lambda: clock[0])
    callback = LastCheckpoint(Path("x"), every_steps=every_steps, every_minutes=every_minutes)
    steps: list[int] = []
    for step in range(1, 11):
        clock[0] += 60  # a step a minute
        trainer: Any = SimpleNamespace(
            global_step=step,
            max_steps=10,
            lightning_module=module,
            save_checkpoint=lambda *_, step=step, **__: steps.append(step),
        )
        callback.on_train_batch_end(trainer, module, None, None, step - 1)
    assert steps == saved


@pytest.mark.parametrize("weights_only", [True, False])
def test_checkpoint_with_a_nan_in_it_is_never_written(module: MocoSFL, weights_only: bool):
    saved: list[Path] = []
    trainer: Any = SimpleNamespace(
        lightning_module=module, save_checkpoint=lambda path, **_: saved.append(path)
    )
    save_if_finite(trainer, Path("good"), weights_only=weights_only)
    with torch.no_grad():
        next(module.federation.server.projector.parameters()).view(-1)[-1] = math.nan
    save_if_finite(trainer, Path("bad"), weights_only=weights_only)
    assert saved == [Path("good")]
