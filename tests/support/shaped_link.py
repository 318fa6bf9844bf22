"""A slow link that loses packets, between two network namespaces of this machine.

Each end is a namespace with a TUN device; a process of its own carries packets from one device to
the other and shapes each direction as `tc netem` does: loss, then a queue of fixed length, the
rate, and the delay. What TCP sees is real: it retransmits, and slows down. No kernel module is
needed, and nothing outside the two namespaces is touched.

    with ShapedLink(Shaping()) as link:
        subprocess.run([*link.near.prefix, "python", ...])   # listens on link.near.address
        subprocess.run([*link.far.prefix, "python", ...])    # connects to it

The carrying process removes the namespaces, and ends what runs in them, when its owner has died;
names carry the owner's process id, so that whatever should be left is removed by the next link.
"""

import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

DEVICE = "link0"  # the name of both ends, each in its namespace
ADDRESSES = ("192.0.2.1", "192.0.2.2")  # TEST-NET-1: belongs to nobody
NETWORK = "192.0.2.0/24"
PREFIX = "mocosfl"  # of the namespaces' names: mocosfl-<pid>-<number>-<end>
MTU = 1500  # bytes, as on Ethernet
BURST = 64  # packets read from a device before others are looked after
TUN = Path("/dev/net/tun")
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h


@dataclass(frozen=True)
class Shaping:
    """What happens to a packet, in each direction alike."""

    bits_per_second: float = 20e6
    delay_seconds: float = 0.03  # one way: a round trip takes twice as long
    loss_probability: float = 0.01  # of each packet by itself
    queue_bytes: int = 250_000  # that may wait for the link, 0.1 s of it; what comes then is lost
    seed: int = 0
    # How TCP answers to loss: what most systems use, whatever this one's default is.
    congestion_control: str = "cubic"


class Counters(NamedTuple):
    """What a device has counted: whole IP packets, with what was sent again."""

    sent_bytes: int
    received_bytes: int
    sent_packets: int
    received_packets: int


class End(NamedTuple):
    """One side of the link."""

    namespace: str
    address: str

    @property
    def prefix(self) -> list[str]:
        """Return what a command line begins with to run here."""
        return ["ip", "netns", "exec", self.namespace]

    def counters(self) -> Counters:
        """Read the device's counters."""
        shown = _run("ip", "-n", self.namespace, "-s", "-j", "link", "show", "dev", DEVICE)
        (link,) = json.loads(shown)
        sent, received = link["stats64"]["tx"], link["stats64"]["rx"]
        return Counters(sent["bytes"], received["bytes"], sent["packets"], received["packets"])


def why_not() -> str | None:
    """Return why this machine can't have a shaped link; None where it can."""
    if sys.platform != "linux":
        return "a shaped link needs Linux's network namespaces"
    if os.geteuid() != 0:
        return "a shaped link needs root, to make network namespaces"
    if shutil.which("ip") is None:
        return "a shaped link needs the program ip (iproute2)"
    if not TUN.exists():
        return f"a shaped link needs {TUN}"
    try:
        with ShapedLink(Shaping()):
            return None
    except LinkError as error:
        return f"a shaped link can't be made here: {error}"


class LinkError(RuntimeError):
    """The link can't be made; says which command failed and how."""


class ShapedLink:
    """Two namespaces with a link between them, as long as the context lasts."""

    _made = 0  # by this process

    def __init__(self, shaping: Shaping) -> None:
        self.shaping = shaping
        ShapedLink._made += 1
        name = f"{PREFIX}-{os.getpid()}-{ShapedLink._made}"
        self.near, self.far = (
            End(f"{name}-{which}", address)
            for which, address in zip(("near", "far"), ADDRESSES, strict=True)
        )
        self._carrier: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        remove_leftovers()
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.close()

    def _make(self) -> None:
        for end in (self.near, self.far):
            _run("ip", "netns", "add", end.namespace)
        settings = json.dumps(asdict(self.shaping))
        arguments = [sys.executable, __file__, self.near.namespace, self.far.namespace, settings]
        self._carrier = subprocess.Popen(
            [*self.near.prefix, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the test, which closes the link at its end
        )
        assert self._carrier.stdout is not None
        assert self._carrier.stderr is not None
        if self._carrier.stdout.readline() != b"ready\n":
            reason = self._carrier.stderr.read().decode().strip()
            raise LinkError(reason or "its carrier ended without a word")

    def close(self) -> None:
        """End what runs in the namespaces, and remove them."""
        carrier, self._carrier = self._carrier, None
        for end in (self.near, self.far):
            remove_namespace(end.namespace, spare=None if carrier is None else carrier.pid)
        if carrier is not None:
            carrier.kill()  # the devices go with it
            carrier.communicate()


def remove_leftovers() -> None:
    """Remove the namespaces of processes that are no more."""
    for name in _namespaces():
        owner = name.split("-")[1] if name.startswith(f"{PREFIX}-") else ""
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            remove_namespace(name)


def remove_namespace(name: str, *, spare: int | None = None) -> None:
    """End all processes in a namespace but one, and remove it; nothing happens without it."""
    with contextlib.suppress(LinkError):
        for pid in map(int, _run("ip", "netns", "pids", name).split()):
            if pid not in (spare, os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        _run("ip", "netns", "delete", name)


def _namespaces() -> list[str]:
    return [line.split()[0] for line in _run("ip", "netns", "list").splitlines()]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LinkError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Direction:
    """The packets on their way from one device to the other."""

    def __init__(self, shaping: Shaping, seed: int) -> None:
        self.shaping, self.rng = shaping, random.Random(seed)
        self.free_at = 0.0  # when the link has sent all that waits
        self.underway: list[tuple[float, int, bytes]] = []  # heap: arrival, number, packet
        self._number = 0

    def take(self, packet: bytes, now: float) -> None:
        """Lose a packet, or send it."""
        shaping = self.shaping
        waiting_bits = max(0.0, self.free_at - now) * shaping.bits_per_second
        if self.rng.random() < shaping.loss_probability:
            return
        if waiting_bits + 8 * len(packet) > 8 * shaping.queue_bytes:
            return
        self.free_at = max(now, self.free_at) + 8 * len(packet) / shaping.bits_per_second
        self._number += 1
        heapq.heappush(self.underway, (self.free_at + shaping.delay_seconds, self._number, packet))

    def arrived(self, now: float) -> list[bytes]:
        """Return the packets that are through."""
        packets = []
        while self.underway and self.underway[0][0] <= now:
            packets.append(heapq.heappop(self.underway)[2])
        return packets

    def next_arrival(self) -> float:
        """Return when the next packet is through."""
        return self.underway[0][0] if self.underway else float("inf")


def carry(devices: Sequence[int], shaping: Shaping, owner: IO[bytes]) -> None:
    """Carry packets between two TUN devices until `owner` ends."""
    directions = [Direction(shaping, shaping.seed + number) for number in (0, 1)]
    while True:
        until = min(direction.next_arrival() for direction in directions) - time.monotonic()
        wait = max(0.0, until) if until < float("inf") else None
        sources: list[int | IO[bytes]] = [*devices, owner]
        readable, _, _ = select.select(sources, [], [], wait)
        if owner in readable:
            return
        now = time.monotonic()
        for device, direction in zip(devices, directions, strict=True):
            with contextlib.suppress(BlockingIOError):
                for _ in range(BURST if device in readable else 0):
                    direction.take(os.read(device, 2 * MTU), now)
        for device, direction in zip(reversed(devices), directions, strict=True):
            for packet in direction.arrived(now):
                with contextlib.suppress(OSError):  # the device may be going down
                    os.write(device, packet)


def open_device(name: str) -> int:
    """Make a TUN device in this process's namespace; it is gone when the process is."""
    device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def set_up(namespace: str, address: str, congestion_control: str) -> None:
    """Give a namespace's device its address."""
    ip = ("ip", "-n", namespace)
    _run(*ip, "link", "set", "dev", DEVICE, "mtu", str(MTU), "txqueuelen", "1000", "up")
    _run(*ip, "link", "set", "dev", "lo", "up")
    _run(*ip, "address", "add", address, "dev", DEVICE)
    # By the route, because the system's own default can be changed outside the namespace alone.
    _run(*ip, "route", "add", NETWORK, "dev", DEVICE, "congctl", congestion_control)


def main() -> None:
    """Be the process that carries: <namespace near> <namespace far> <shaping as JSON>."""
    namespaces, shaping = sys.argv[1:3], Shaping(**json.loads(sys.argv[3]))
    try:
        far = open_device("far")
        _run("ip", "link", "set", "dev", "far", "netns", namespaces[1], "name", DEVICE)
        devices = [open_device(DEVICE), far]
        for namespace, address in zip(namespaces, ADDRESSES, strict=True):
            set_up(namespace, address, shaping.congestion_control)
    except (LinkError, OSError) as error:
        sys.exit(str(error))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    carry(devices, shaping, sys.stdin.buffer)
    # The owner has died; alive, it would have ended this process itself.
    for namespace in namespaces:
        remove_namespace(namespace)


if __name__ == "__main__":
    main()
