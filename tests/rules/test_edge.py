"""Rules, plan and traffic of a networked federation, and how it is resumed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from mocosfl.cli.train import run
from mocosfl.config.hydra_setup import CONF, composed
from mocosfl.config.schema import Config
from mocosfl.edge.server.client_settings import make_remote_clients
from mocosfl.edge.server.networked_deployment import NetworkedDeployment
from mocosfl.overhead.network import build_network
from mocosfl.overhead.plan import make_plan
from mocosfl.overhead.plan_in_words import describe_plan
from mocosfl.overhead.traffic import rates
from mocosfl.rules.validate import validate
from mocosfl.runs.folder import RunFolder
from mocosfl.training.deployment import SIMULATION
from mocosfl.training.run import train
from tests.support.edge_federation import with_edge

Compose = Callable[[Sequence[str]], Config]

# What breaks a rule -> the words of its message that must come.
BROKEN: list[tuple[list[str], dict[str, Any], str]] = [
    ([], {"listen": "50061"}, "edge.listen=50061: no HOST:PORT"),
    ([], {"listen": "127.0.0.1:70000"}, "edge.listen=127.0.0.1:70000"),
    ([], {"listen": "0.0.0.0:50061"}, "nothing would be encrypted"),
    ([], {"certificates": "c", "insecure": True}, "contradicts edge.certificates"),
    ([], {"num_remote": 0}, "edge.num_remote=0: must be from 1 to clients.num_clients=100"),
    ([], {"num_remote": 101}, "edge.num_remote=101"),
    ([], {"min_clients": 0}, "edge.min_clients=0: must be from 1 to 100"),
    ([], {"num_remote": 2, "min_clients": 3}, "edge.min_clients=3: must be from 0 to 2"),
    ([], {"step_deadline_seconds": 0.0}, "edge.step_deadline_seconds=0.0: must be above 0"),
    ([], {"keepalive_seconds": -1.0}, "edge.keepalive_seconds=-1.0"),
    ([], {"status_every_seconds": 0.0}, "edge.status_every_seconds=0.0"),
    ([], {"start_wait_seconds": -1.0}, "edge.start_wait_seconds=-1.0: must be at least 0"),
    ([], {"max_refusals": 0}, "edge.max_refusals=0: must be at least 1"),
    ([], {"precision": "int4"}, "edge.precision=int4: choose one of fp32, fp16, int8, fp64"),
    ([], {"precision": "fp64"}, "edge.precision=fp64: only with trainer.precision=fp64"),
    (["method=fl_moco"], {}, "method=fl_moco: a networked federation trains mocosfl"),
    (["method=sfl_supervised"], {}, "method=sfl_supervised"),
    (["saving=by_loss"], {}, "saving.enabled=true: not in a networked federation"),
    (["taressfl=online"], {}, "taressfl.mode=online: not in a networked federation"),
    (["clients.client_state=stateless"], {}, "clients.client_state=stateless"),
    (["trainer.devices=2"], {}, "trainer.devices=2: a networked server is one process"),
]


@pytest.mark.parametrize(("overrides", "changes", "words"), BROKEN)
def test_broken_rule_is_named(
    compose_quick: Compose, overrides: list[str], changes: dict[str, Any], words: str
) -> None:
    config = with_edge(compose_quick(overrides), **changes)
    with pytest.raises(ValueError) as caught:
        validate(config)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"listen": "localhost:1"},
        {"listen": "[::1]:50061"},
        {"listen": "0.0.0.0:50061", "insecure": True},
        {"listen": "0.0.0.0:50061", "certificates": "certificates/server"},
        {"num_remote": 1, "min_clients": 0},
    ],
)
def test_sound_settings_pass(compose_quick: Compose, changes: dict[str, Any]) -> None:
    validate(with_edge(compose_quick([]), **changes))


def test_server_s_configuration_composes_and_is_sound() -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        config: Any = hydra_compose("edge_server", ["run_dir=none"])
    validate(config)
    assert config.edge.num_remote is None


def test_plan_tells_who_is_remote(compose_quick: Compose) -> None:
    config = with_edge(compose_quick([]), num_remote=3, precision="int8")
    counts = np.full(100, 14)
    text = describe_plan(config, make_plan(config, counts))
    assert "3 remote clients, 97 simulated" in text
    assert "in the clear, smashed data in int8" in text
    assert "edge  " not in describe_plan(compose_quick([]), make_plan(compose_quick([]), counts))


@pytest.mark.parametrize(("precision", "num_bytes"), [("fp32", 4), ("fp16", 2), ("int8", 1)])
def test_prediction_counts_the_wire_s_precision(
    compose_quick: Compose, precision: str, num_bytes: int
) -> None:
    config = with_edge(compose_quick([]), precision=precision)
    rate = rates(config, build_network(config), 2)
    smashed = 2 * 4 * 16 * 16  # images x channels x height x width
    assert (rate.step_up, rate.step_down) == (2 * smashed * num_bytes, smashed * num_bytes)
    assert rate.sync == 116 * 4  # weights are fp32 whatever the wire's precision


def test_step_that_no_message_can_hold_is_refused(compose_quick: Compose) -> None:
    config = with_edge(compose_quick(["clients.batch_size=8192"]))
    with pytest.raises(ValueError, match=r"clients\.batch_size=8192: the smashed data of a step"):
        make_remote_clients(config, build_network(config).client, 7)


def test_networked_run_is_not_resumed_as_a_simulation(
    compose_quick: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mocosfl.cli.train.in_sweep", lambda: False)
    overrides = SimpleNamespace(overrides=SimpleNamespace(task=[f"resume={tmp_path}"]))
    monkeypatch.setattr("mocosfl.cli.train.HydraConfig", SimpleNamespace(get=lambda: overrides))
    RunFolder(tmp_path).save_config(with_edge(compose_quick([])))
    config = compose_quick([])
    config.resume = str(tmp_path)
    with pytest.raises(SystemExit):
        run(config)
    assert "resumed with python -m mocosfl.edge.server" in capsys.readouterr().err


def test_run_is_trained_by_the_program_of_its_clients_alone(
    compose_quick: Compose, tmp_path: Path
) -> None:
    networked, simulated = with_edge(compose_quick([])), compose_quick([])
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match=r"other machines is trained and resumed with python -m"):
        train(networked, folder, resume=False)
    with pytest.raises(ValueError, match=r"simulation is trained and resumed with train\.py"):
        train(simulated, folder, resume=False, deployment=NetworkedDeployment())
    assert not folder.config.exists()
    SIMULATION.check(simulated)
    NetworkedDeployment().check(networked)


def test_missing_certificates_are_told_before_anything_is_written(
    compose_quick: Compose, tmp_path: Path
) -> None:
    config = with_edge(compose_quick([]), certificates=str(tmp_path / "nowhere"))
    folder = RunFolder(Path(config.run_dir))
    with pytest.raises(FileNotFoundError, match=r"edge\.certificates=.*nowhere: no ca\.pem there"):
        train(config, folder, resume=False, deployment=NetworkedDeployment())
    assert not folder.config.exists()


def test_overhead_and_dealing_take_the_server_s_keys() -> None:
    config = composed(["run_dir=none", "edge.precision=int8", "edge.num_remote=2"])
    assert config.edge is not None and config.edge.precision == "int8"
    assert composed(["run_dir=none"]).edge is None
