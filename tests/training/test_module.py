"""What the clients pay for being read reaches their heads alone."""

from pathlib import Path

import pytest
import torch

from mocosfl.runs.folder import RunFolder
from mocosfl.training.run import train
from tests.support.checkpoints import read
from tests.support.configurations import EXPERT, ONLINE, Compose


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["expert", "online"])
def test_penalty_moves_the_heads_in_proportion_to_alpha_and_the_server_not_at_all(
    mode: str, compose_quick: Compose, tmp_path: Path
):
    overrides = EXPERT if mode == "expert" else ["taressfl=online", *ONLINE]
    states = []
    for alpha in (0, 1, 2):
        folder = RunFolder(tmp_path / str(alpha))
        more = ["trainer.max_steps=1", "trainer.precision=fp64", f"taressfl.alpha={alpha}"]
        train(compose_quick([*overrides, *more]), folder, resume=False)
        states.append(read(folder.last)["state_dict"])
    none, single, double = states
    server = [name for name in none if name.startswith("federation.server.trunk.")]
    assert all(torch.equal(none[name], double[name]) for name in server)
    moved = 0
    for name in [name for name in none if name.startswith("federation.clients.online.")]:
        step = single[name] - none[name]
        moved += int(step.flatten(1).abs().amax(1).gt(0).sum())
        assert torch.allclose(double[name] - none[name], 2 * step, rtol=1e-6, atol=1e-12), name
    assert moved > 3 * (1 if mode == "expert" else 6)  # of every client
