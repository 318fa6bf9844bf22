"""The link between namespaces is as slow and as lossy as it says, and leaves nothing behind."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import shaped_link
from tests.support.paths import ROOT
from tests.support.shaped_link import Direction, LinkError, ShapedLink, Shaping, why_not

PACKET = bytes(1000)  # 8,000 bits: 1 ms at 8 Mbit/s
SHAPING = Shaping(bits_per_second=8e6, delay_seconds=0.5, loss_probability=0, queue_bytes=10_500)


@pytest.fixture(scope="module")
def linkable() -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def link(linkable: None, request: pytest.FixtureRequest) -> Iterator[ShapedLink]:
    with ShapedLink(request.param) as made:
        yield made


def test_packets_arrive_one_after_the_other_at_the_rate_and_behind_the_delay() -> None:
    direction = Direction(SHAPING, seed=0)
    for number in range(3):
        direction.take(bytes([number]) * 1000, now=10.0)

    assert direction.next_arrival() == pytest.approx(10.501)
    assert direction.arrived(10.5009) == []
    assert [packet[0] for packet in direction.arrived(10.5021)] == [0, 1]
    direction.take(PACKET, now=20.0)  # the link has been idle
    assert [packet[0] for packet in direction.arrived(20.0)] == [2]
    assert direction.next_arrival() == pytest.approx(20.501)


def test_packets_that_find_the_queue_full_are_lost() -> None:
    direction = Direction(SHAPING, seed=0)
    for _ in range(15):
        direction.take(PACKET, now=0.0)
    assert len(direction.arrived(now=1.0)) == 10


def test_as_many_packets_are_lost_as_the_probability_says() -> None:
    direction = Direction(Shaping(loss_probability=0.01, bits_per_second=1e12), seed=0)
    for number in range(50_000):
        direction.take(b"a packet", now=float(number))
    lost = 50_000 - len(direction.arrived(now=1e6))
    assert abs(lost - 500) < 4 * 22  # four standard deviations


SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], 5000)) as server:
    print("listening", flush=True)
    client, _ = server.accept()
    with client:
        while client.recv(1 << 16):
            pass
        client.sendall(b"through")
"""
CLIENT = """
import socket, sys, time
start = time.perf_counter()
with socket.create_connection((sys.argv[1], 5000)) as server:
    connected = time.perf_counter()
    server.sendall(bytes(int(sys.argv[2])))
    server.shutdown(socket.SHUT_WR)
    assert server.recv(100) == b"through"
print(connected - start, time.perf_counter() - connected)
"""


def transfer(link: ShapedLink, num_bytes: int) -> tuple[float, float]:
    """Send bytes from far to near; returns the seconds to connect, and to send them all."""
    server = [*link.near.prefix, sys.executable, "-c", SERVER, link.near.address]
    client = [*link.far.prefix, sys.executable, "-c", CLIENT, link.near.address, str(num_bytes)]
    with subprocess.Popen(server, stdout=subprocess.PIPE) as serving:
        assert serving.stdout is not None
        assert serving.stdout.readline() == b"listening\n"
        done = subprocess.run(client, check=True, capture_output=True, timeout=60)
    connecting, sending = map(float, done.stdout.split())
    return connecting, sending


@pytest.mark.parametrize("link", [Shaping(loss_probability=0, queue_bytes=10**7)], indirect=True)
def test_tcp_gets_the_rate_and_the_delay_and_the_devices_count_its_bytes(link: ShapedLink) -> None:
    connecting, sending = transfer(link, 1_000_000)

    assert 0.06 < connecting < 0.5  # a round trip
    assert 0.4 < sending < 2  # 8 Mbit at 20 Mbit/s, with TCP's slow start and a slow machine
    time.sleep(0.5)  # for the last word to arrive
    sent, received = link.far.counters(), link.near.counters()
    # 52 bytes of headers on 1,448; on a busy machine TCP may send something twice.
    assert 1_030_000 < sent.sent_bytes < 1_400_000
    assert received.received_bytes == sent.sent_bytes
    assert received.sent_packets == sent.received_packets > 100
    assert received.sent_bytes == sent.received_bytes


@pytest.mark.parametrize("link", [Shaping(loss_probability=0.1)], indirect=True)
def test_tcp_sends_again_what_the_link_has_lost(link: ShapedLink) -> None:
    transfer(link, 100_000)
    time.sleep(0.5)  # what is on its way is not lost

    sent, received = link.far.counters(), link.near.counters()
    assert received.received_packets < sent.sent_packets
    assert received.received_bytes < sent.sent_bytes
    assert received.received_bytes > 100_000


# Makes a link, starts a process in each namespace, and waits to be killed.
OWNER = """
import subprocess, sys, time
from tests.support.shaped_link import ShapedLink, Shaping
with ShapedLink(Shaping()) as link:
    pids = [subprocess.Popen([*end.prefix, "sleep", "60"]).pid for end in (link.near, link.far)]
    print(link.near.namespace, link.far.namespace, link._carrier.pid, *pids, flush=True)
    time.sleep(float(sys.argv[1]))
"""


def own_a_link(seconds: float) -> tuple[subprocess.Popen[str], list[str], list[int]]:
    """Start an owner; returns it, its namespaces, and the processes: carrier and two sleepers."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(seconds)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert owner.stdout is not None
    near, far, *pids = owner.stdout.readline().split()
    return owner, [near, far], [int(pid) for pid in pids]


def there(namespaces: list[str], pids: list[int]) -> list[str]:
    """Return what is left."""
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    left = [name for name in namespaces if name in names.stdout]
    for pid in pids:
        status = Path(f"/proc/{pid}/stat")
        if status.exists() and status.read_text().split()[2] != "Z":
            left.append(str(pid))
    return left


def wait_until_gone(namespaces: list[str], pids: list[int]) -> None:
    limit = time.monotonic() + 60
    while left := there(namespaces, pids):
        assert time.monotonic() < limit, left
        time.sleep(0.02)


@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed"])
def test_nothing_is_left_when_the_owner_has_ended_or_was_killed(
    linkable: None, killed: bool
) -> None:
    owner, namespaces, pids = own_a_link(60 if killed else 0)
    with owner:
        if killed:
            assert len(there(namespaces, pids)) == 5
            owner.kill()
        owner.wait(10)
    wait_until_gone(namespaces, pids)


def test_next_link_removes_what_an_owner_killed_with_its_carrier_has_left(linkable: None) -> None:
    owner, namespaces, pids = own_a_link(60)
    with owner:
        os.kill(pids[0], 9)
        owner.kill()
        owner.wait(10)
    wait_until_gone([], pids[:1])
    assert len(there(namespaces, pids)) == 4
    with ShapedLink(Shaping()) as mine:
        wait_until_gone(namespaces, pids)
        assert len(there([mine.near.namespace, mine.far.namespace], [])) == 2


def test_machine_that_can_not_have_a_link_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shaped_link.shutil, "which", lambda name: f"/sbin/{name}")
    monkeypatch.setattr(shaped_link, "TUN", Path(__file__))

    def fail(*command: str) -> str:
        raise LinkError(f"{' '.join(command[:3])}: Operation not permitted")

    monkeypatch.setattr(shaped_link, "_run", fail)
    assert "can't be made here: ip netns" in str(why_not())
    monkeypatch.setattr(shaped_link, "TUN", Path(__file__) / "missing")
    assert "missing" in str(why_not())
    monkeypatch.setattr(shaped_link.shutil, "which", lambda name: None)
    assert "iproute2" in str(why_not())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "root" in str(why_not())
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "Linux" in str(why_not())
