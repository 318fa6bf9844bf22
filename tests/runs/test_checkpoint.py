"""A checkpoint gives back the encoder that was trained; a file that does not fit is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mocosfl.federation.build import build_federation
from mocosfl.runs import checkpoint_content as names
from mocosfl.runs.checkpoint import (
    check_same_run,
    config_of,
    find_checkpoint,
    fingerprint,
    read_checkpoint,
    read_encoder,
)
from mocosfl.runs.folder import RunFolder
from mocosfl.training.build import build_module
from mocosfl.training.run import train
from tests.support.configurations import Compose, changed


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("which", ["last", "best"])
def test_loaded_encoder_is_that_of_the_trained_federation(
    quick_run: RunFolder, images: torch.Tensor, which: str
):
    path = find_checkpoint(quick_run.path, which)
    module = build_module(quick_run.load_config(), steps_per_round=7)
    state = torch.load(path, weights_only=True)
    module.load_state_dict(state["state_dict"], strict=False)
    encoder = read_encoder(path)
    with torch.no_grad():
        expected = module.federation.encoder().eval()(images)
        torch.testing.assert_close(encoder.network(images), expected, rtol=1e-6, atol=1e-6)
    assert not encoder.network.training
    assert not any(p.requires_grad for p in encoder.network.parameters())
    assert (encoder.step, encoder.source) == (state["global_step"], str(path))


def test_encoder_of_clients_that_differ_has_their_mean_as_its_head(
    quick_run: RunFolder, images: torch.Tensor, tmp_path: Path
):
    # A run stopped between two syncs.
    checkpoint = torch.load(quick_run.last, weights_only=True)
    state, key = checkpoint["state_dict"], "federation.clients.online.units.stem.conv.weight"
    state[key] += 0.1 * torch.randn(state[key].shape, generator=torch.Generator().manual_seed(1))
    torch.save(checkpoint, tmp_path / "x.ckpt")
    module = build_module(quick_run.load_config(), steps_per_round=7)
    module.load_state_dict(state, strict=False)
    network = read_encoder(tmp_path / "x.ckpt").network
    with torch.no_grad():
        expected = module.federation.encoder().eval()(images)
        torch.testing.assert_close(network(images), expected)
    assert fingerprint(network) != fingerprint(read_encoder(quick_run.last).network)


def test_fingerprint_changes_with_a_single_weight_and_with_nothing_else(quick_run: RunFolder):
    network = read_encoder(quick_run.last).network
    before = fingerprint(network)
    network(torch.zeros(1, 3, 16, 16))
    assert fingerprint(network) == before == fingerprint(read_encoder(quick_run.last).network)
    with torch.no_grad():
        weight = next(iter(network.parameters())).view(-1)
        weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    assert fingerprint(network) != before


def test_checkpoint_is_found_by_its_file_or_its_run(quick_run: RunFolder):
    assert find_checkpoint(quick_run.best, "last") == quick_run.best
    assert find_checkpoint(quick_run.path, "last") == quick_run.last
    assert find_checkpoint(quick_run.path, "best") == quick_run.best


def test_checkpoint_that_is_not_there_is_named(quick_run: RunFolder, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint=.*: no checkpoints/best\.ckpt there"):
        find_checkpoint(tmp_path, "best")
    with pytest.raises(ValueError, match="which=first: choose last or best"):
        find_checkpoint(quick_run.path, "first")


def test_configuration_in_a_checkpoint_is_the_runs(quick_run: RunFolder):
    assert config_of(read_checkpoint(quick_run.last), "checkpoint") == quick_run.load_config()


@pytest.mark.parametrize("damage", ["cut off", "empty", "text", "foreign", "pickle"])
def test_file_that_is_no_checkpoint_of_ours_is_refused(
    quick_run: RunFolder, tmp_path: Path, damage: str
):
    path, whole = tmp_path / "x.ckpt", quick_run.last.read_bytes()
    if damage == "foreign":
        torch.save({"state_dict": {}}, path)
    elif damage == "pickle":
        torch.save({"config": Path("x"), "state_dict": {}}, path)  # would run code when read
    else:
        cut = {"cut off": whole[:-2000], "empty": b"", "text": b"no checkpoint"}
        path.write_bytes(cut[damage])
    with pytest.raises(ValueError, match=f"checkpoint={path}: not "):
        read_checkpoint(path)


def test_weights_of_another_network_are_refused(quick_run: RunFolder, tmp_path: Path):
    checkpoint = torch.load(quick_run.last, weights_only=True)
    checkpoint["config"]["backbone"]["width"] = 8
    torch.save(checkpoint, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="its weights do not fit the configuration in it"):
        read_encoder(tmp_path / "x.ckpt")


def test_checkpoint_of_another_configuration_lists_every_key_that_differs(quick_run: RunFolder):
    check_same_run(quick_run.last, quick_run.load_config())
    values = {"seed": 7, "moco.symmetric": "none", "dataset.mean": [0.1, 0.2, 0.3]}
    with pytest.raises(ValueError) as error:
        check_same_run(quick_run.last, changed(quick_run.load_config(), values))
    lines = str(error.value).splitlines()
    assert lines[1:-1] == [
        "dataset.mean=[0.1, 0.2, 0.3]: the checkpoint was trained with [0.306, 0.306, 0.306]",
        "moco.symmetric=none: the checkpoint was trained with server",
        "seed=7: the checkpoint was trained with 1234",
    ]


def test_run_may_move_and_log_elsewhere(quick_run: RunFolder, tmp_path: Path):
    elsewhere: dict[str, Any] = {
        "run_dir": "moved",
        "data_dir": "other",
        "logger.wandb": True,
        "notes": "moved",
    }
    shutil.copy(quick_run.last, tmp_path / "last.ckpt")
    check_same_run(tmp_path / "last.ckpt", changed(quick_run.load_config(), elsewhere))


def test_page_of_names_lists_all_that_a_checkpoint_holds(quick_run: RunFolder):
    assert names.__doc__ is not None
    last, best = (torch.load(file, weights_only=True) for file in (quick_run.last, quick_run.best))
    # Lightning says by which version of it the file was written.
    known = {key for key in last if key not in ("epoch", "pytorch-lightning_version")}
    assert known <= {word.strip(",") for word in names.__doc__.split()} | {"hparams_name"}
    prefixes = (names.CLIENTS, names.SERVER, names.ATTACKERS)
    assert all(name.startswith(prefixes) for name in last[names.STATE])
    assert all(f"{names.SERVER}{part}." in names.__doc__ for part in names.SERVER_PARTS)
    assert list(last[names.CALLBACKS][names.ALARM]) == [names.SUSPICIOUS_SINCE]
    assert names.BANK in last[names.STATE]
    assert names.BANK not in best[names.STATE]
    left_out = {names.OPTIMIZERS, names.CALLBACKS, names.SAVING, names.EDGE}
    assert left_out & best.keys() == set()


@pytest.mark.parametrize(
    "method", ["fl_moco", "central_moco", "sfl_supervised", "central_supervised"]
)
def test_baseline_trains_and_its_checkpoint_gives_the_encoder_back(
    method: str, compose_quick: Compose, tmp_path: Any
) -> None:
    central = method.startswith("central")
    number = ["clients.num_clients=1", "clients.participation=1.0"] if central else []
    config = compose_quick([f"method={method}", *number, "trainer.max_steps=4"])
    folder = RunFolder(tmp_path / "run")
    module = train(config, folder, resume=False)
    trained, fresh = module.federation.encoder().eval(), build_federation(config).encoder().eval()
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    loaded = read_encoder(folder.last)
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(images), trained(images))
        assert not torch.allclose(fresh(images), trained(images))
