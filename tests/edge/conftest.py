"""What tests of remote clients share."""

import pytest

from mocosfl.edge.client import server_connection


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients of this process try to connect again at once."""
    monkeypatch.setattr(server_connection, "FIRST_WAIT_SECONDS", 0.02)
