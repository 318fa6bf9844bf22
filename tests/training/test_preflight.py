"""What cannot fit into memory is refused before it starts."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mocosfl.config.schema import Config
from mocosfl.overhead.plan import Plan, make_plan
from mocosfl.runs.folder import RunFolder
from mocosfl.training.preflight import check_memory, pool_bytes
from mocosfl.training.run import train
from tests.support.configurations import Compose

MANY = 100_000
HEAD = 4 * 27 + 8  # weights of the first convolution and its norm
SIZE = 16  # pixels
SMASHED = 4 * SIZE**2


def many_clients(compose_quick: Compose, overrides: list[str]) -> tuple[Config, Plan]:
    """Return 100,000 clients with two images each; a pool of 100 of them."""
    shape = [f"clients.num_clients={MANY}", "clients.participation=0.001", "clients.batch_size=1"]
    config = compose_quick([*shape, *overrides])
    return config, make_plan(config, np.full(MANY, 2))


def test_pool_is_counted_by_its_heads_views_and_smashed_data(compose_quick: Compose) -> None:
    config, plan = many_clients(compose_quick, [])
    views = 2 * 3 * SIZE**2 * 4

    assert pool_bytes(config, plan) == 100 * (4 * HEAD * 4 + views + 2 * SMASHED * 4)

    config, plan = many_clients(compose_quick, ["trainer.precision=bf16", "optimizer.client_lr=0"])
    assert pool_bytes(config, plan) == 100 * (2 * HEAD * 4 + views + 2 * SMASHED * 2)


def test_bank_that_does_not_fit_names_the_stateless_way_out(compose_quick: Compose) -> None:
    config, plan = many_clients(compose_quick, [])
    needed = plan.bank_bytes + pool_bytes(config, plan)

    check_memory(config, plan, host_bytes=needed, gpu_bytes=0)
    with pytest.raises(ValueError, match=r"client_state=bank: .*100,000.*client_state=stateless"):
        check_memory(config, plan, host_bytes=needed - 1, gpu_bytes=0)

    stateless, its_plan = many_clients(compose_quick, ["clients.client_state=stateless"])
    check_memory(stateless, its_plan, host_bytes=needed - 1, gpu_bytes=0)


def test_pool_that_does_not_fit_names_the_participation(compose_quick: Compose) -> None:
    config, plan = many_clients(compose_quick, ["clients.participation=1"])
    needed = pool_bytes(config, plan)

    check_memory(config, plan, host_bytes=2 * needed, gpu_bytes=0)
    with pytest.raises(ValueError, match=r"participation=1.*100,000 clients.*this machine has"):
        check_memory(config, plan, host_bytes=needed - 1, gpu_bytes=0)
    with pytest.raises(ValueError, match=r"participation=1.*the GPU has"):
        check_memory(config, plan, host_bytes=2 * needed, gpu_bytes=needed - 1)


def test_each_process_has_its_clients_on_its_gpu_and_the_whole_bank_in_memory(
    compose_quick: Compose,
) -> None:
    config, plan = many_clients(compose_quick, ["trainer.devices=2"])
    pool, bank = pool_bytes(config, plan), plan.bank_bytes

    check_memory(config, plan, host_bytes=2 * bank, gpu_bytes=pool // 2)
    with pytest.raises(ValueError, match="client_state=bank"):
        check_memory(config, plan, host_bytes=2 * bank - 1, gpu_bytes=pool // 2)
    with pytest.raises(ValueError, match="the GPU has"):
        check_memory(config, plan, host_bytes=2 * bank, gpu_bytes=pool // 2 - 1)
    check_memory(config, plan, host_bytes=2 * bank + pool, gpu_bytes=0)
    with pytest.raises(ValueError, match="client_state=bank"):
        check_memory(config, plan, host_bytes=2 * bank + pool - 1, gpu_bytes=0)


def test_bank_lies_beside_a_gpu_and_not_on_it(compose_quick: Compose) -> None:
    config, plan = many_clients(compose_quick, [])
    pool = pool_bytes(config, plan)

    check_memory(config, plan, host_bytes=plan.bank_bytes, gpu_bytes=pool)


def test_memory_of_this_machine_is_enough_for_a_tiny_run(compose_tiny: Compose) -> None:
    config = compose_tiny([])
    check_memory(config, make_plan(config, np.full(config.clients.num_clients, 10)))


def test_disk_that_is_too_small_is_refused_before_training(
    compose_quick: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = SimpleNamespace(free=2**20)
    monkeypatch.setattr("mocosfl.training.preflight.shutil.disk_usage", lambda path: usage)
    # A round: 7 steps of 12 images, query and key of 4 x 16 x 16 numbers in fp32, twice.
    needed = 2 * 7 * 12 * 2 * 4 * 16 * 16 * 4 / 2**20
    with pytest.raises(ValueError, match=f"keeps up to {needed:.2f} MB .* and 1.00 MB are free"):
        train(compose_quick(["saving=by_loss"]), RunFolder(tmp_path / "run"), resume=False)
