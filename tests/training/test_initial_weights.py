"""What a run starts from: fresh weights, or an expert's; and the experts it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from mocosfl.config.schema import Config
from mocosfl.federation.build import build_federation
from mocosfl.rules.validate import validate
from mocosfl.runs.checkpoint import fingerprint, read_encoder
from mocosfl.runs.checkpoint_content import HEADS
from mocosfl.runs.folder import RunFolder
from mocosfl.training.build import build_module
from mocosfl.training.callbacks.step_log import StepLog
from mocosfl.training.initial_weights import fresh_encoder, load_expert, start_from_expert
from mocosfl.training.run import train
from tests.support.checkpoints import assert_same_results, break_off, read
from tests.support.configurations import EXPERT, QUICK, Compose, changed

SERVER = "federation.server."


@pytest.fixture(scope="module")
def expert(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Train an expert for a few steps, once for all tests here."""
    from tests.support.configurations import cached_config

    folder = RunFolder(tmp_path_factory.mktemp("expert") / "run")
    config = cached_config((f"data_dir={data_dir}", *QUICK, *EXPERT)).copy()
    config.run_dir = str(folder.path)
    train(config, folder, resume=False)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def compose_frozen(compose_quick: Compose, expert: RunFolder) -> Compose:
    start = ["taressfl=on", f"taressfl.expert={expert.path}", "split=cut1_c4s2"]
    return lambda overrides: compose_quick([*start, *overrides])


@pytest.mark.slow
def test_frozen_heads_stay_the_experts_bit_for_bit(
    compose_frozen: Compose, expert: RunFolder, tmp_path: Path
):
    folder = RunFolder(tmp_path / "run")
    config = compose_frozen(["optimizer.server_lr=0.06"])
    validate(config)
    module = train(config, folder, resume=False)
    before, after = read(expert.last)["state_dict"], read(folder.last)["state_dict"]
    heads = [name for name in before if name.startswith(HEADS)]
    assert len(heads) > 3
    for name in heads:
        for copy in (name, name.replace(".online.", ".momentum.")):
            assert after[copy].shape[0] == 6  # of the pool
            assert torch.equal(after[copy], before[name].expand_as(after[copy])), copy
    trunk = [name for name in before if name.startswith(f"{SERVER}trunk.")]
    assert any(not torch.equal(before[name], after[name]) for name in trunk)  # that one trained
    client = json.loads(folder.overhead.read_text())["clients"][0]
    assert client["rates"]["step_up"] > 0  # and nothing else travels
    assert client["rates"]["step_down"] == client["rates"]["sync"] == 0
    clients = module.federation.clients
    for client in (0, 50, 99):
        state = clients.client_state(client, module._optimizer())
        for name, tensor in state["online"].items():
            assert torch.equal(tensor, before[HEADS + name][0])


def test_server_starts_from_the_experts_and_its_queue_anew(
    compose_frozen: Compose, expert: RunFolder
):
    config = compose_frozen([])
    federation, fresh = build_federation(config), build_federation(config)
    checkpoint = load_expert(config)
    assert checkpoint is not None
    start_from_expert(federation, checkpoint)
    theirs = checkpoint["state_dict"]
    for name, tensor in federation.server.state_dict().items():
        wanted = fresh.server.queue.state_dict() if name.startswith("queue.") else None
        if wanted is None:
            assert torch.equal(tensor, theirs[SERVER + name]), name
        elif isinstance(tensor, torch.Tensor):
            assert torch.equal(tensor, wanted[name.removeprefix("queue.")]), name


def test_untrained_encoder_of_such_a_run_is_the_expert(compose_frozen: Compose, expert: RunFolder):
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    start, theirs = fresh_encoder(compose_frozen([])), read_encoder(expert.last)
    assert torch.equal(start.network(images), theirs.network(images))


@pytest.mark.slow
def test_run_resumes_without_the_experts_folder(
    compose_frozen: Compose, expert: RunFolder, tmp_path: Path
):
    moved = tmp_path / "expert"
    shutil.copytree(expert.path, moved)
    folder = RunFolder(tmp_path / "run")
    config = changed(compose_frozen([]), {"taressfl.expert": str(moved)})
    train(config, folder, resume=False)
    shutil.rmtree(moved)
    module = train(config, folder, resume=True)  # it has finished: nothing is left to do
    assert module.global_step == 21


def test_published_rates_are_set_by_the_group(compose_frozen: Compose):
    config = compose_frozen([])
    assert (config.optimizer.client_lr, config.optimizer.server_lr) == (0.0, 0.001)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("split=cut2_c4s2", r"split\.cut_layer=2: the expert .* has 1; set split\.cut_layer=1"),
        ("split=cut1_c8s2", r"split\.bottleneck_channels=8: the expert .* has 4"),
        ("split=cut1", r"split\.bottleneck_channels=None: the expert .* has 4"),
        ("backbone.width=8", r"backbone\.width=8: the expert .* has 4"),
        ("backbone=vgg11", r"backbone\.name=vgg11: the expert .* has resnet18"),
        ("moco.projector_dim=16", r"moco\.projector_dim=16: the expert .* has 8"),
        ("dataset.mean=[0.5,0.5,0.5]", r"dataset\.mean=\[0\.5, 0\.5, 0\.5\]: the expert"),
    ],
)
def test_expert_of_another_network_is_refused(compose_frozen: Compose, override: str, words: str):
    with pytest.raises(ValueError, match=words):
        load_expert(compose_frozen([override, "backbone.width=4", override]))


def test_refused_expert_leaves_no_run_behind(compose_frozen: Compose, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    config = changed(compose_frozen([]), {"taressfl.expert": "nowhere"})
    with pytest.raises(FileNotFoundError, match=r"taressfl\.expert=nowhere: no checkpoints/last"):
        train(config, folder, resume=False)
    assert not folder.config.exists()


def test_file_that_is_no_checkpoint_is_refused(compose_frozen: Compose, tmp_path: Path):
    file = tmp_path / "some.ckpt"
    file.write_text("no checkpoint")
    with pytest.raises(ValueError, match=r"taressfl\.expert=.*some\.ckpt: not a readable"):
        load_expert(changed(compose_frozen([]), {"taressfl.expert": str(file)}))


def spoiled(config: Config, expert: RunFolder, tmp_path: Path, **changes: object) -> Config:
    """Point a configuration to a copy of the expert's checkpoint with something changed."""
    checkpoint = torch.load(expert.last, weights_only=True)
    checkpoint["config"]["method"] |= changes.pop("method", {})  # type: ignore[arg-type]
    checkpoint["config"]["taressfl"] |= changes.pop("taressfl", {})  # type: ignore[arg-type]
    checkpoint |= changes.pop("checkpoint", {})  # type: ignore[arg-type,operator]
    checkpoint["callbacks"]["Alarm"] |= changes
    file = tmp_path / "spoiled.ckpt"
    torch.save(checkpoint, file)
    return changed(config, {"taressfl.expert": str(file)})


def test_checkpoint_without_a_head_is_refused(
    compose_frozen: Compose, expert: RunFolder, tmp_path: Path
):
    method = {"name": "fl_moco"}
    config = spoiled(compose_frozen([]), expert, tmp_path, method=method)
    with pytest.raises(ValueError, match=r"taressfl\.expert=.*: has no head, method=fl_moco"):
        load_expert(config)


def test_collapsed_expert_is_refused(compose_frozen: Compose, expert: RunFolder, tmp_path: Path):
    config = spoiled(compose_frozen([]), expert, tmp_path, suspicious_since=7)
    with pytest.raises(ValueError, match="collapsed at step 7 of its training"):
        load_expert(config)


def test_expert_with_a_classifier_is_refused(
    compose_frozen: Compose, expert: RunFolder, tmp_path: Path
):
    method = {"name": "sfl_supervised"}
    config = spoiled(compose_frozen([]), expert, tmp_path, method=method)
    with pytest.raises(ValueError, match="method=sfl_supervised has trained a classifier"):
        load_expert(config)


def test_run_that_has_not_ended_is_refused_and_its_file_taken(
    compose_frozen: Compose, expert: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    config = spoiled(compose_frozen([]), expert, tmp_path, checkpoint={"max_steps": 100})
    assert load_expert(config) is not None
    assert "of step 9 of 100" in caplog.text
    folder = RunFolder(tmp_path / "run")
    folder.last.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "spoiled.ckpt", folder.last)
    with pytest.raises(ValueError, match=r"step 9 of 100; go on with it \(resume="):
        load_expert(changed(config, {"taressfl.expert": str(folder.path)}))


def test_start_from_a_run_without_attackers_is_told(
    compose_frozen: Compose, expert: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    config = spoiled(compose_frozen([]), expert, tmp_path, taressfl={"mode": "off"})
    assert load_expert(config) is not None
    assert "may be easy to invert" in caplog.text


@pytest.mark.slow
def test_online_regulariser_trains_every_client_and_resumes(
    compose_quick: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    overrides = [
        "taressfl=online",
        "taressfl.target_ssim=0",
        "taressfl.decoder=plain",
        "split=cut1_c4s2",
        "callbacks.knn_every_rounds=0",
        "clients.dropout_probability=0.2",
    ]
    whole, halves = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "halves")
    module = train(compose_quick(overrides), whole, resume=False)
    assert module.attackers is not None
    # Three rounds of six clients: each of them has taken steps with an attacker of its own.
    steps = module.attackers.get_extra_state()["adam.num_steps"][1]
    assert steps is not None
    assert int((steps > 0).sum()) + 6 >= 12
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        break_off(patch, 11, behind=StepLog)
        train(compose_quick(overrides), halves, resume=False)
    train(compose_quick(overrides), halves, resume=True)
    assert_same_results(whole, halves)


def test_fresh_encoder_is_what_the_run_starts_from(compose_quick: Compose):
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    config = compose_quick([])
    encoder = fresh_encoder(config)
    start = build_module(config, steps_per_round=7).federation.encoder().eval()
    assert torch.equal(encoder.network(images), start(images))
    assert (encoder.step, encoder.source) == (0, "untrained")
    other = fresh_encoder(changed(config, {"seed": 5}))
    assert fingerprint(other.network) != fingerprint(encoder.network)
