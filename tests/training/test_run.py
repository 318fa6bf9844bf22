"""A run that is broken off and resumed ends as if it never was; what it can't do is told first."""

import json
import math
from pathlib import Path

import pytest
import torch

from mocosfl.data.federated_data import FederatedData
from mocosfl.data.partition import Partition
from mocosfl.federation.federation import Federation
from mocosfl.federation.server import ServerOutput, SmashedStep
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves
from mocosfl.system.errors import TrainingStopped
from mocosfl.training.callbacks.checkpoints import LastCheckpoint
from mocosfl.training.callbacks.step_log import StepLog
from mocosfl.training.run import train
from tests.support.checkpoints import assert_same_results, break_off, curves, differences, read
from tests.support.configurations import STEPS, Compose

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
    moments = ((5, StepLog), (8, LastCheckpoint), (15, StepLog))
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


def test_resuming_a_finished_run_changes_nothing(quick_run: RunFolder, run_copy: RunFolder):
    train(run_copy.load_config(), run_copy, resume=True)
    files = [f.relative_to(run_copy.path) for f in run_copy.path.rglob("[!.]*") if f.is_file()]
    assert len(files) == 9
    for file in files:
        assert (run_copy.path / file).read_bytes() == (quick_run.path / file).read_bytes(), file


def test_run_stopped_before_its_first_checkpoint_resumes_from_the_start(
    compose_quick: Compose, quick_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, config = RunFolder(tmp_path / "run"), compose_quick(["trainer.max_steps=3"])
    with monkeypatch.context() as patch:
        break_off(patch, 1, behind=StepLog)
        with pytest.raises(SystemExit):
            train(config, folder, resume=False)
    assert len(curves(folder)) == 1
    assert not folder.last.exists()
    train(config, folder, resume=True)
    losses, whole = (read_curves(run.metrics)["train/loss"] for run in (folder, quick_run))
    assert losses == (whole[0][:3], whole[1][:3])


def test_data_set_that_changed_meanwhile_is_noticed(run_copy: RunFolder):
    partition = Partition.load(run_copy.partition)
    Partition(partition.order[::-1].copy(), partition.offsets).save(run_copy.partition)
    with pytest.raises(ValueError, match=r"resume=.*: the clients would hold other images"):
        train(run_copy.load_config(), run_copy, resume=True)


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


def test_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    compose_quick: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    good, calls = Federation.learn, []

    def diverging(self: Federation, step: SmashedStep) -> ServerOutput:
        output = good(self, step)
        calls.append(1)
        factor = float("nan") if len(calls) >= 6 else 1.0
        return output._replace(loss=output.loss * factor)

    monkeypatch.setattr(Federation, "learn", diverging)
    folder = RunFolder(tmp_path / "run")
    # NaN from step 6; checkpoints are due at steps 6 and 8, the alarm looks at step 10.
    config = compose_quick(["trainer.log_every_steps=10", "callbacks.knn_every_rounds=0"])
    with pytest.raises(TrainingStopped, match=r"loss is nan at step 10: .*optimizer\.server_lr"):
        train(config, folder, resume=False)
    checkpoint = read(folder.last)
    assert checkpoint["global_step"] == 4
    tensors = [t for t in checkpoint["state_dict"].values() if isinstance(t, torch.Tensor)]
    assert all(t.isfinite().all() for t in tensors)


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


@pytest.mark.slow
def test_expert_learns_logs_and_resumes_bit_for_bit(
    compose_expert: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, halves = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "halves")
    config = compose_expert([])
    train(config, whole, resume=False)
    curves = read_curves(whole.metrics)
    for name in ("train/loss", "privacy/attacker_ssim", "privacy/penalty"):
        assert len(curves[name][0]) == 9, name
    similarity, penalty = (curves[f"privacy/{n}"][1] for n in ("attacker_ssim", "penalty"))
    assert penalty == pytest.approx([2.0 * value for value in similarity])  # target 0
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        break_off(patch, 5, behind=StepLog)
        train(config, halves, resume=False)
    assert read(halves.last)["global_step"] == 3
    train(config, halves, resume=True)
    assert_same_results(whole, halves)
