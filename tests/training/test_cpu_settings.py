"""What a run sets for the CPU."""

import pytest

from mocosfl.training.cpu_settings import keep_memory
from tests.support.configurations import Compose


@pytest.mark.parametrize("wanted", [True, False])
def test_a_run_keeps_memory_only_where_it_is_told_to(
    compose_quick: Compose, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    calls = []
    monkeypatch.setattr("mocosfl.training.cpu_settings.keep_freed_memory", lambda: calls.append(1))
    keep_memory(compose_quick([f"trainer.keep_freed_memory={wanted}"]))
    assert len(calls) == wanted
