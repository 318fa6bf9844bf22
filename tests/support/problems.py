"""What the rules say of a configuration."""

import pytest

from mocosfl.config.schema import Config
from mocosfl.rules.validate import validate


def problems(config: Config) -> list[str]:
    """Return the lines in which a configuration is refused."""
    with pytest.raises(ValueError) as error:
        validate(config)
    return str(error.value).splitlines()
