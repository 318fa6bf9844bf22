"""Rules of a networked federation: each is told by its key."""

from typing import Any

import pytest

from mocosfl.config.hydra_setup import compose_file
from mocosfl.rules.validate import validate
from tests.support.configurations import Compose
from tests.support.edge_federation import with_edge

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
    config: Any = compose_file("edge_server", ["run_dir=none"])
    validate(config)
    assert config.edge.num_remote is None
