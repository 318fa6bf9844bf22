"""`trainer.compile=true`: the same run, its networks translated by torch.compile."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from mocosfl.runs.folder import RunFolder
from mocosfl.training.build import build_module
from mocosfl.training.run import train
from tests.support.checkpoints import read
from tests.support.configurations import Compose


# torch.compile looks at gradients it may not look at; it hides the warnings unless they are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler"
)
def test_a_compiled_run_ends_as_one_that_is_not(compose_quick: Compose, tmp_path: Path) -> None:
    module = build_module(compose_quick(["trainer.compile=true"]), steps_per_round=7)
    server = module.federation.server
    assert server.trunk._compiled_call_impl is not None
    assert module.federation.clients.online._compiled_call_impl is not None
    torch._dynamo.utils.counters.clear()
    folders = []
    for compiled in ("false", "true"):
        folder = RunFolder(tmp_path / compiled)
        config = compose_quick(
            [f"trainer.compile={compiled}", "trainer.precision=fp64", f"run_dir={folder.path}"]
        )
        train(config, folder, resume=False)
        folders.append(folder)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    eager, translated = (read(folder.last)["state_dict"] for folder in folders)
    assert list(eager) == list(translated)
    for name, value in eager.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(translated[name], value, rtol=1e-9, atol=1e-11)
