"""The published rule for the settings of clients."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from mocosfl.config.published import (
    published_batch_size,
    published_participation,
    published_rounds,
    published_syncs_per_round,
)
from mocosfl.rules.validate import validate
from tests.support.configurations import Compose


@pytest.mark.parametrize("num_clients", [5, 20, 100, 200, 1000])
def test_clients_files_are_the_published_rule_in_plain_values(compose: Compose, num_clients: int):
    clients: Any = compose([f"clients={num_clients}"]).clients
    assert OmegaConf.to_container(clients, resolve=False, enum_to_str=True) == {
        "num_clients": num_clients,
        "batch_size": published_batch_size(num_clients),
        "syncs_per_round": published_syncs_per_round(num_clients),
        "participation": published_participation(num_clients),
        "num_rounds": published_rounds(num_clients, 200),
        "dropout_probability": 0.0,
        "client_state": "bank",
    }


@pytest.mark.parametrize(
    ("num_clients", "batch_size", "syncs", "participation", "rounds"),
    [
        (1, 100, 10, 1, 200),
        (5, 20, 10, 1, 200),
        (7, 14, 10, 1, 200),  # 1000 // 98
        (20, 5, 10, 1, 200),
        (50, 2, 10, 1, 200),
        (51, 1, 19, 1, 200),
        (100, 1, 10, 1, 200),
        (199, 1, 5, 1, 200),
        (200, 1, 5, 1 / 2, 400),
        (300, 1, 3, 1 / 3, 600),
        (399, 1, 2, 1 / 3, 600),
        (1000, 1, 1, 1 / 10, 2000),
        (5000, 1, 1, 1 / 50, 10000),
    ],
)
def test_published_rule(
    num_clients: int, batch_size: int, syncs: int, participation: float, rounds: int
):
    assert published_batch_size(num_clients) == batch_size
    assert published_syncs_per_round(num_clients) == syncs
    assert published_participation(num_clients) == participation
    assert published_rounds(num_clients, 200) == rounds


def test_published_rule_is_applied_to_any_number_of_clients(compose: Compose):
    clients = compose(["clients=published", "clients.num_clients=300"]).clients
    assert (clients.batch_size, clients.syncs_per_round) == (1, 3)
    assert (clients.participation, clients.num_rounds) == (1 / 3, 600)


@pytest.mark.parametrize("num_clients", [0, -3])
def test_published_rule_refuses_no_clients_by_the_keys_name(compose: Compose, num_clients: int):
    config = compose(["clients=published", f"clients.num_clients={num_clients}"])
    with pytest.raises(ValueError, match=f"clients.num_clients={num_clients}: must be at least 1"):
        validate(config)
