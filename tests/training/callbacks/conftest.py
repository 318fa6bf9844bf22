"""What tests of callbacks share."""

import pytest

from mocosfl.training.build import build_module
from mocosfl.training.module import MocoSFL
from tests.support.configurations import STEPS_PER_ROUND, Compose


@pytest.fixture
def module(compose_quick: Compose) -> MocoSFL:
    """Return the module of the quick run, untrained."""
    return build_module(compose_quick([]), STEPS_PER_ROUND)
