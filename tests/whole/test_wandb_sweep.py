"""The ready W&B sweep file: what `wandb agent` makes of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from wandb.sdk.launch.sweeps import utils as agents

from mocosfl.config.command_line import check_simulated, quote_choices
from mocosfl.config.hydra_setup import CONF
from mocosfl.rules.validate import validate
from tests.support.configurations import Compose, composed_with_hydra

FILE = CONF / "wandb_sweep.yaml"


@pytest.fixture
def sweep() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def commands(sweep: dict[str, Any]) -> Iterator[list[str]]:
    """Yield arguments as `wandb agent` puts them together: each value of the grid at least once."""
    grid = {name: choices["values"] for name, choices in sweep["parameters"].items()}
    for number in range(max(map(len, grid.values()))):
        given = {name: {"value": values[number % len(values)]} for name, values in grid.items()}
        parts = agents.create_sweep_command_args({"args": given})
        command: list[str] = []
        for part in agents.create_sweep_command(list(sweep["command"])):
            whole = part.startswith("${") and part.endswith("}")
            command += parts.get(part[2:-1], []) if whole else [part]
        yield command


def test_runs_of_the_grid_compose_and_are_valid(
    sweep: dict[str, Any], compose: Compose, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc123")
    monkeypatch.setenv("WANDB_RUN_ID", "run45678")
    settings = []
    for command in commands(sweep):
        config = compose(check_simulated(quote_choices(command)))
        validate(config)
        assert config.logger.wandb_mode == "online"
        assert config.output_dir == "multirun/wandb_abc123"
        cut, kind = config.split.cut_layer, config.partition.kind.name
        settings.append((config.clients.num_clients, cut, kind))
        folder = composed_with_hydra(command).hydra.run.dir
        assert folder == "multirun/wandb_abc123/run45678"  # no time in it
    assert settings == [(5, 1, "iid"), (20, 2, "shards"), (100, 1, "iid"), (1000, 2, "shards")]


def test_file_asks_for_what_is_logged_and_is_of_the_default_project(
    sweep: dict[str, Any], compose: Compose
):
    assert sweep["metric"] == {"name": "val/knn_top1", "goal": "maximize"}
    assert sweep["project"] == compose([]).logger.wandb_project
    assert sweep["method"] == "grid"
    assert (Path(FILE).parents[1] / sweep["program"]).is_file()
