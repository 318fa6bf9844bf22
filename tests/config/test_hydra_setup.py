"""Where the folder of a run is."""

from pathlib import Path

import pytest

from mocosfl.config.hydra_setup import choose_run_dir, composed
from tests.support.configurations import composed_with_hydra


def test_run_folder_is_below_output_dir_and_named_after_the_run(tmp_path: Path):
    overrides = [f"output_dir={tmp_path}", "split=cut3", "method=monacosfl"]
    (tmp_path / "config.yaml").touch()  # what a run folder is known by
    fresh, resumed = composed_with_hydra(overrides), composed_with_hydra([f"resume={tmp_path}"])
    folder = Path(fresh.hydra.run.dir)
    assert folder.parent == tmp_path
    assert folder.name.endswith(f"_digits_monacosfl_n{fresh.clients.num_clients}_cut3")
    assert Path(resumed.hydra.run.dir) == tmp_path


def test_run_folder_that_cannot_be_written_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"output_dir: cannot write to .*/file/run"):
        choose_run_dir(None, str(tmp_path / "file" / "run"))


def test_overhead_and_dealing_take_the_server_s_keys() -> None:
    config = composed(["run_dir=none", "edge.precision=int8", "edge.num_remote=2"])
    assert config.edge is not None and config.edge.precision == "int8"
    assert composed(["run_dir=none"]).edge is None
