"""Who a certificate says that a client is."""

import re


def common_name(client: int) -> str:
    """Return the name in a client's certificate."""
    return f"client-{client}"


def client_of(name: str) -> int | None:
    """Return the client that a certificate's common name means; None for any other name."""
    match = re.fullmatch(r"client-(0|[1-9]\d{0,8})", name)
    return None if match is None else int(match[1])
