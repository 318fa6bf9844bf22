"""What tests of reports share."""

from functools import partial
from typing import Any

import pytest

from tests.support.configurations import Compose
from tests.support.written_runs import written_run


@pytest.fixture
def write_run(compose: Compose) -> Any:
    """Write what a run leaves, or a part of it."""
    return partial(written_run, compose)
