"""A run is resumed by the command that began it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from mocosfl.cli.train import run
from mocosfl.runs.folder import RunFolder
from tests.support.configurations import Compose
from tests.support.edge_federation import with_edge


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
    command = f"resume it with python -m mocosfl.edge.server resume={tmp_path}"
    assert command in capsys.readouterr().err
