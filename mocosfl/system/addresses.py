"""Where a server is: HOST:PORT."""

import ipaddress
import re
from typing import NamedTuple

# An address of IPv6 may name the interface that it is reached by: [fe80::1%eth0].
_HOST_AND_PORT = r"(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[^\s:\[\]]+):(\d{1,5})"


class Address(NamedTuple):
    """Where a server listens, or is called."""

    host: str  # a name or an address; one of IPv6 is in brackets
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine, for this machine alone."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


def parse_address(text: str, *, least_port: int = 0) -> Address:
    """Read HOST:PORT.

    Args:
        text: to read.
        least_port: 1 where port 0, any that is free, makes no sense.

    Raises:
        ValueError: it is anything else.
    """
    match = re.fullmatch(_HOST_AND_PORT, text, re.ASCII)
    if match is None or not least_port <= int(match[2]) <= 65535:
        raise ValueError(
            f"{text}: no HOST:PORT with a port from {least_port} to 65535, as in "
            "lab.example:50061, 0.0.0.0:50061 or [::1]:50061"
        )
    return Address(match[1], int(match[2]))
