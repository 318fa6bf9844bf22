"""HOST:PORT is read in one place, and a server of this machine is known by it."""

import pytest

from mocosfl.system.addresses import parse_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("lab.example:50061", "lab.example", 50061), ("10.0.0.5:0", "10.0.0.5", 0),
     ("[::1]:65535", "[::1]", 65535), ("[fe80::1%eth0]:5", "[fe80::1%eth0]", 5)],
)  # fmt: skip
def test_host_and_port_are_read(text: str, host: str, port: int):
    assert parse_address(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["lab", "50061", ":1", "lab:", "lab:65536", "lab:-1", "lab:\u0661", "::1:5", "[::1]", "a b:1"],
)
def test_anything_else_is_refused_with_an_example(text: str):
    with pytest.raises(ValueError, match=r"no HOST:PORT .* 0 to 65535, as in lab\.example:50061"):
        parse_address(text)


def test_port_0_is_for_those_who_listen():
    with pytest.raises(ValueError, match="lab:0: no HOST:PORT with a port from 1 to 65535"):
        parse_address("lab:0", least_port=1)


def test_loopback_is_known_by_its_address():
    inside = ["127.0.0.1:1", "127.3.2.1:1", "[::1]:1", "localhost:1"]
    outside = ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "lab.example:1", "127.example:1"]
    assert all(parse_address(text).is_loopback for text in inside)
    assert not any(parse_address(text).is_loopback for text in outside)
