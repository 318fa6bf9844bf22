"""What goes wrong between a server and its clients, over real streams on this machine."""

import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.certificates import make_certificates
from mocosfl.edge.credentials import Credentials, read_credentials
from mocosfl.edge.server import client_streams
from tests.support.edge_streams import (
    SHAPE,
    GoodClient,
    OpenRemoteClients,
    Stream,
    closed,
    expectation,
    hello,
    open_remote_clients,
    smashed,
    wait_until,
    weights,
)
from tests.support.mutations import ROWS, mutated_messages
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of two federations: home/ and elsewhere/."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("home", "elsewhere"):
        make_certificates(folder / name, num_clients=4, server_names=["127.0.0.1"], days=30)
    return folder


def credentials(folder: Path, client: int) -> Credentials:
    return read_credentials(folder / "clients" / str(client), "--certificates")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Where a test has the training's side of a step wait."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def connected(remote: OpenRemoteClients, *clients: int) -> None:
    wait_until(lambda: all(remote.is_connected(client) for client in clients))


# ---- who is let in


def test_with_certificates_of_the_federation_a_client_is_who_they_say(certificates: Path):
    home = certificates / "home"
    server = read_credentials(home / "server", "edge.certificates")
    with open_remote_clients(2, credentials=server) as remote:
        good = [GoodClient(remote.address, c, credentials(home, c).for_client()) for c in (0, 1)]
        with closed(*good):
            connected(remote, 0, 1)
            assert remote.go(0) == {0: 1.0, 1: 2.0}


def test_client_with_certificate_of_another_ca_never_gets_in(certificates: Path):
    home, elsewhere = certificates / "home", certificates / "elsewhere"
    server = read_credentials(home / "server", "edge.certificates")
    # It trusts the server; what is wrong is what it shows.
    own = credentials(elsewhere, 1)
    stranger_shows = grpc.ssl_channel_credentials(server.ca, own.key, own.cert)
    with open_remote_clients(2, credentials=server) as remote:
        good = GoodClient(remote.address, 0, credentials(home, 0).for_client())
        stranger, wary, plain, nameless = (
            Stream(remote.address, c)
            for c in (
                stranger_shows,
                own.for_client(),  # doesn't trust the server either
                None,
                grpc.ssl_channel_credentials(server.ca),
            )
        )
        with closed(good, stranger, wary, plain, nameless):
            for stream in (stranger, wary, plain, nameless):
                stream.send(hello(client=1))
                assert stream.ending().code is grpc.StatusCode.UNAVAILABLE
            connected(remote, 0)
            assert remote.go(0) == {0: 1.0}  # the others go on
            assert not remote.is_connected(1) and remote.ledger[1].connections == 0


HELLOS = {
    "another's id": ({"client": 0}, "it says it is client 0, and its certificate is client 1's"),
    "unknown id": ({"client": 9}, "it says it is client 9, and its certificate is client 1's"),
    "other version": ({"protocol": 99}, "protocol 99, and this server speaks 1"),
    "no images": ({"num_images": 0}, "1 to 100000000 images"),
    "exported head": ({"exported_head": True}, "an exported head can't be trained"),
    "too many states": ({"kept": [pb.KeptState()] * 17}, "at most 16 kept states"),
}


@pytest.mark.parametrize("name", HELLOS)
def test_hello_that_does_not_fit_is_refused_with_words(
    certificates: Path, name: str, caplog: pytest.LogCaptureFixture
):
    changes, words = HELLOS[name]
    home = certificates / "home"
    server = read_credentials(home / "server", "edge.certificates")
    with open_remote_clients(2, credentials=server) as remote:
        good = GoodClient(remote.address, 0, credentials(home, 0).for_client())
        bad = Stream(remote.address, credentials(home, 1).for_client())
        with closed(good, bad):
            connected(remote, 0)
            bad.send(hello(**changes))
            code, details = bad.ending()
            assert code is grpc.StatusCode.PERMISSION_DENIED and words in details
            assert "is refused: " in caplog.text and words in caplog.text
            assert remote.go(0) == {0: 1.0}
            assert remote.is_connected(0) and remote.ledger[0].lost == 0


def test_certificate_of_a_client_that_the_run_does_not_have_is_refused(certificates: Path):
    home = certificates / "home"
    server = read_credentials(home / "server", "edge.certificates")
    with open_remote_clients(2, credentials=server) as remote:
        for certificate, words in (
            (credentials(home, 3), "client 3 is none of this run's remote clients"),
            (server, "its certificate is of 'mocosfl-server', which is no client"),
        ):
            stream = Stream(remote.address, certificate.for_client())
            with closed(stream):
                stream.send(hello())
                code, details = stream.ending()
                # A server's certificate may not even pass the handshake as a client's.
                if code is not grpc.StatusCode.UNAVAILABLE or certificate is not server:
                    assert code is grpc.StatusCode.PERMISSION_DENIED and words in details


@pytest.mark.parametrize(
    ("first", "words"),
    [(b"\xff\xff", "no message"), (b"", "without content"), (smashed(0), "begins with Hello")],
)
def test_stream_that_begins_with_anything_but_hello_is_closed(first: Any, words: str):
    with open_remote_clients(1) as remote:
        stream = Stream(remote.address)
        with closed(stream):
            stream.send(first)
            code, details = stream.ending()
            assert code is grpc.StatusCode.PERMISSION_DENIED and words in details
            assert remote.num_connected == 0


def test_exported_head_of_another_expert_is_refused():
    settings = pb.Settings(frozen=True, head_digest="ours")
    with open_remote_clients(1, settings=settings) as remote:
        stream = Stream(remote.address)
        with closed(stream):
            stream.send(hello(client=0, exported_head=True, head_digest="theirs"))
            assert "another one than this run's" in stream.ending().details


# ---- what is not accepted in a step


def nan(step: int) -> pb.ClientMessage:
    message = smashed(step)
    message.smashed.key.data = np.full(SHAPE, np.inf, "<f4").tobytes()
    return message


BAD_ANSWERS = {
    "nan": (nan, "Smashed.key: has NaN or infinite values"),
    "shape": (lambda s: smashed(s, shape=(2, 1, 2, 3)), "shape (2, 1, 2, 2) expected"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_answer_leaves_its_client_out_of_the_step_at_once(
    name: str, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
):
    make, words = BAD_ANSWERS[name]
    with open_remote_clients(2, step_deadline_seconds=60.0) as remote:
        good, bad = GoodClient(remote.address, 0), Stream(remote.address)
        with closed(good, bad):
            bad.send(hello(client=1))
            connected(remote, 0, 1)
            step: Future[Any] = pool.submit(remote.go, 0)
            bad.hear("welcome")
            bad.send(make(bad.hear("step").step))
            assert step.result(20) == {0: 1.0}  # long before the deadline
            assert words in bad.hear("refused").reason and words in caplog.text
            assert "client 1: refused (1 of 10)" in caplog.text
            step = pool.submit(remote.go, 1)  # asked again, it may do better
            bad.send(smashed(bad.hear("step").step, 5.0))
            assert step.result(20) == {0: 1.0, 1: 5.0}


UNASKED = {
    "replayed": (lambda: smashed(0), "Smashed of step 0 has come before"),
    "future step": (lambda: smashed(9), "smashed of step 9, and nothing is asked for"),
    "weights": (lambda: weights(0), "weights of step 0, and nothing is asked for"),
    "oversize": (lambda: bytes(2**23), "a message of 8388608 bytes, at most"),
    "second hello": (lambda: hello(client=1), "Hello was said already"),
}


@pytest.mark.parametrize("name", UNASKED)
def test_unasked_message_is_refused_and_the_step_is_as_without_it(
    name: str, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
):
    make, words = UNASKED[name]
    with open_remote_clients(2) as remote:
        good, bad = GoodClient(remote.address, 0), Stream(remote.address)
        with closed(good, bad):
            bad.send(hello(client=1))
            connected(remote, 0, 1)
            step: Future[Any] = pool.submit(remote.ask, 0)
            bad.hear("welcome")
            bad.send(smashed(bad.hear("step").step, 5.0))
            assert step.result(20) == {0: 1.0, 1: 5.0}
            bad.send(make())
            assert words in bad.hear("refused").reason and words in caplog.text
            remote.send(0, 0, 1)
            assert bad.hear("gradient").step == 0
            step = pool.submit(remote.go, 1)
            bad.send(smashed(bad.hear("step").step, 6.0))
            assert step.result(20) == {0: 1.0, 1: 6.0}
            assert remote.ledger[1].steps == 2 and remote.ledger[1].refusals == 1


def test_message_above_the_cap_ends_its_stream_and_no_other(pool: ThreadPoolExecutor):
    with open_remote_clients(2) as remote:
        good, bad = GoodClient(remote.address, 0), Stream(remote.address)
        with closed(good, bad):
            bad.send(hello(client=1))
            connected(remote, 0, 1)
            step: Future[Any] = pool.submit(remote.go, 0)
            bad.hear("welcome")
            bad.hear("step")
            bad.send(bytes(wire.MAX_MESSAGE_BYTES + 1))
            assert step.result(20) == {0: 1.0}
            code, details = bad.ending()
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details
            assert remote.go(1, 0) == {0: 1.0}


def test_bad_weights_are_left_out_of_the_mean_and_their_client_gets_the_new_head(
    pool: ThreadPoolExecutor,
):
    with open_remote_clients(2, step_deadline_seconds=60.0) as remote:
        good, bad = GoodClient(remote.address, 0), Stream(remote.address)
        with closed(good, bad):
            bad.send(hello(client=1))
            connected(remote, 0, 1)
            step: Future[Any] = pool.submit(remote.go, 0, sync_after=True)
            bad.hear("welcome")
            bad.send(smashed(bad.hear("step").step))
            bad.hear("gradient")
            message = weights(0)
            message.weights.online.data = np.full(3, np.nan, "<f4").tobytes()
            bad.send(message)
            step.result(20)
            assert "Weights.online" in bad.hear("refused").reason
            assert remote.ledger[0].syncs == 1 and remote.ledger[1].syncs == 0
            step = pool.submit(remote.go, 1)
            request = bad.hear("step")
            assert request.head.step == remote.head_step == 1
            bad.send(smashed(request.step))
            assert set(step.result(20)) == {0, 1}


def test_client_is_thrown_out_at_the_limit_and_stays_out(
    pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
):
    with open_remote_clients(2, max_refusals=3) as remote:
        good, bad = GoodClient(remote.address, 0), Stream(remote.address)
        with closed(good, bad):
            bad.send(hello(client=1))
            connected(remote, 0, 1)
            step: Future[Any] = pool.submit(remote.go, 0)
            bad.hear("welcome")
            bad.hear("step")
            for number in (1, 2, 3):
                bad.send(b"\xff garbage")
                assert bad.hear("refused").count == number
            assert step.result(20) == {0: 1.0}
            code, details = bad.ending()
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert "3 messages were refused, the last one: 9 bytes that are no" in details
            assert "client 1: is thrown out: 3 messages" in caplog.text
            again = Stream(remote.address)
            with closed(again):
                again.send(hello(client=1))
                code, details = again.ending()
                assert (
                    code is grpc.StatusCode.PERMISSION_DENIED and "disconnected after 3" in details
                )
            assert remote.go(1) == {0: 1.0}


# ---- who comes back


def test_client_that_comes_back_within_a_step_is_not_sent_the_gradient_it_does_not_wait_for(
    pool: ThreadPoolExecutor,
):
    with open_remote_clients(2) as remote:
        good, first = GoodClient(remote.address, 0), Stream(remote.address)
        with closed(good, first):
            first.send(hello(client=1))
            connected(remote, 0, 1)
            step: Future[Any] = pool.submit(remote.ask, 0)
            welcome = first.hear("welcome")
            first.hear("step")
            first.send(smashed(0, 5.0))
            assert step.result(20) == {0: 1.0, 1: 5.0}
            again = Stream(remote.address)
            with closed(again):
                again.send(hello(client=1, incarnation=welcome.incarnation, head_step=0))
                assert first.ending().code is grpc.StatusCode.ALREADY_EXISTS
                remote.send(0, 0, 1)
                step = pool.submit(remote.ask, 1)
                assert again.hear("welcome").go_on
                assert again.hear("step").step == 1  # and no gradient before
                again.send(smashed(1, 6.0))
                assert step.result(20) == {0: 1.0, 1: 6.0}


def test_client_that_answers_and_comes_back_while_a_step_waits_is_not_in_it_any_more(
    pool: ThreadPoolExecutor,
):
    with open_remote_clients(2) as remote:
        slow, first = Stream(remote.address), Stream(remote.address)
        with closed(slow, first):
            slow.send(hello(client=0))
            first.send(hello(client=1))
            connected(remote, 0, 1)
            step: Future[Any] = pool.submit(remote.go, 0)
            for stream in (slow, first):
                stream.hear("welcome")
                stream.hear("step")
            first.send(smashed(0, 5.0))
            wait_until(lambda: remote.ledger[1].steps == 1)
            again = Stream(remote.address)
            with closed(again):
                again.send(hello(client=1))
                again.hear("welcome")
                slow.send(smashed(0, 4.0))
                # Its rows are there, and may be used; its gradient goes nowhere.
                assert step.result(20) == {0: 4.0, 1: 5.0}
                assert slow.hear("gradient").step == 0
                step = pool.submit(remote.ask, 1)
                assert again.hear("step").step == 1
                again.send(smashed(1, 6.0))
                slow.hear("step")
                slow.send(smashed(1, 6.0))
                step.result(20)


def test_late_client_is_left_out_asked_again_once_it_has_answered_and_given_the_missed_head(
    pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    with open_remote_clients(2, step_deadline_seconds=0.3) as remote:
        good, slow = GoodClient(remote.address, 0), Stream(remote.address)
        with closed(good, slow):
            slow.send(hello(client=1))
            connected(remote, 0, 1)
            begun = time.monotonic()
            assert remote.go(0, sync_after=True) == {0: 1.0}
            assert time.monotonic() - begun >= 0.3
            assert "client 1: too late, the step goes on without it" in caplog.text
            begun = time.monotonic()
            assert remote.go(1) == {0: 1.0}  # not waited for: it still owes an answer
            assert time.monotonic() - begun < 0.3
            slow.hear("welcome")
            assert slow.hear("step").step == 0
            slow.send(smashed(0))
            wait_until(lambda: remote.ledger[1].smashed_up > 0)
            step: Future[Any] = pool.submit(remote.go, 2)
            request = slow.hear("step")
            assert (request.step, request.head.step) == (2, 1)
            slow.send(smashed(2, 5.0))
            assert step.result(20) == {0: 1.0, 1: 5.0}
            assert remote.ledger[1].late_steps == 1 and remote.ledger[1].refusals == 0


def test_client_is_let_in_while_the_pool_has_no_remote_client():
    with open_remote_clients(1) as remote:
        good = GoodClient(remote.address, 0)
        with closed(good):
            connected(remote, 0)
            assert remote.ask_step({}, 0) == {}
            wait_until(lambda: len(good.told("welcome")) == 1)


def test_deadline_of_the_first_step_counts_from_when_the_last_client_has_come(
    pool: ThreadPoolExecutor,
):
    with open_remote_clients(2, start_wait_seconds=60.0, step_deadline_seconds=1.5) as remote:
        good = GoodClient(remote.address, 0)
        with closed(good):
            connected(remote, 0)
            step: Future[Any] = pool.submit(remote.ask, 0)
            wait_until(lambda: remote.ledger[0].steps == 1)
            time.sleep(1.6)  # longer than a deadline
            slow = Stream(remote.address)
            with closed(slow):
                slow.send(hello(client=1))
                slow.hear("welcome")
                slow.hear("step")
                time.sleep(0.1)  # it takes a moment to answer
                slow.send(smashed(0, 5.0))
                assert step.result(20) == {0: 1.0, 1: 5.0}


def test_start_waits_for_clients_that_are_not_in_the_first_pool_too(pool: ThreadPoolExecutor):
    with open_remote_clients(2, start_wait_seconds=60.0) as remote:
        first = GoodClient(remote.address, 0)
        with closed(first):
            connected(remote, 0)
            step: Future[Any] = pool.submit(remote.ask, 0, 0)
            wait_until(lambda: remote.ledger[0].steps == 1)
            assert not step.done()
            second = GoodClient(remote.address, 1)
            with closed(second):
                assert step.result(20) == {0: 1.0}


def test_start_is_waited_for_no_longer_than_is_told():
    with open_remote_clients(2, start_wait_seconds=0.3, step_deadline_seconds=0.1) as remote:
        good = GoodClient(remote.address, 0)
        with closed(good):
            begun = time.monotonic()
            assert remote.ask(0) == {0: 1.0}
            assert time.monotonic() - begun > 0.2


def test_below_min_clients_a_step_waits_and_says_so(
    pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mocosfl.edge.server.pool_requests.WAITING_WORD_SECONDS", 0.1)
    caplog.set_level("INFO")
    values = {"step_deadline_seconds": 0.1}
    with open_remote_clients(3, min_clients=2, **values) as remote:
        first = GoodClient(remote.address, 0)
        with closed(first):
            connected(remote, 0)
            step: Future[Any] = pool.submit(remote.go, 0)
            words = "a step waits: 1 of at least 2 remote clients have answered, 1 are connected"
            wait_until(lambda: words in caplog.text)
            assert not step.done()
            second = GoodClient(remote.address, 2)
            with closed(second):
                assert step.result(20) == {0: 1.0, 2: 3.0}


def test_step_that_only_a_refused_client_could_answer_asks_it_again(pool: ThreadPoolExecutor):
    with open_remote_clients(1) as remote:
        clumsy = Stream(remote.address)
        with closed(clumsy):
            clumsy.send(hello(client=0))
            connected(remote, 0)
            step: Future[Any] = pool.submit(remote.ask, 0)
            clumsy.hear("welcome")
            clumsy.hear("step")
            clumsy.send(nan(0))
            clumsy.hear("refused")
            assert clumsy.hear("step").step == 0
            clumsy.send(smashed(0, 4.0))
            assert step.result(20) == {0: 4.0}


def test_the_end_of_the_server_is_told_to_all_even_before_they_are_let_in():
    for finished in (True, False):
        with open_remote_clients(2) as remote:
            waiting = Stream(remote.address)
            with closed(waiting):
                waiting.send(hello(client=0))
                connected(remote, 0)
                begun = time.monotonic()
                remote.close(finished=finished, text="so it is")
                assert time.monotonic() - begun < client_streams.GOODBYE_SECONDS
                goodbye = waiting.hear("goodbye")
                assert (goodbye.finished, goodbye.text) == (finished, "so it is")
                assert waiting.ending().code is grpc.StatusCode.OK


# ---- half-open connections


def test_stream_without_hello_is_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_streams, "HELLO_SECONDS", 0.2)
    with open_remote_clients(1) as remote:
        silent = Stream(remote.address)
        with closed(silent):
            code, details = silent.ending()
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED and "no Hello within" in details


def test_connection_that_never_speaks_is_closed_and_disturbs_nobody(
    certificates: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client_streams, "HELLO_SECONDS", 0.5)
    home = certificates / "home"
    server = read_credentials(home / "server", "edge.certificates")
    for its in (None, server):
        with open_remote_clients(1, credentials=its) as remote, socket.socket() as silent:
            silent.connect(("127.0.0.1", remote.port))
            own = None if its is None else credentials(home, 0).for_client()
            good = GoodClient(remote.address, 0, own)
            with closed(good):
                connected(remote, 0)
                assert remote.go(0) == {0: 1.0}
                silent.settimeout(20)
                while silent.recv(1000):  # HTTP/2's greeting; then the end
                    pass
                assert remote.go(1) == {0: 1.0}


class Proxy:
    """Stands between a client and the server; frozen, it keeps the sockets and forwards nothing."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listening]
        self._flowing = threading.Event()
        self._flowing.set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        return "{}:{}".format(*self._listening.getsockname())

    def freeze(self) -> None:
        self._flowing.clear()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            for one, other in ((near, far), (far, near)):
                thread = threading.Thread(target=self._forward, args=(one, other), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(2**16):
                self._flowing.wait()
                other.sendall(data)
        except OSError:
            pass

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._flowing.set()
        for thread in self._threads:
            thread.join(20)
        for each in self._sockets:
            each.close()


@contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    between = Proxy(port)
    try:
        yield between
    finally:
        between.close()


def test_client_that_vanishes_without_a_word_is_noticed_by_keepalive(pool: ThreadPoolExecutor):
    values = {"step_deadline_seconds": 60.0, "keepalive_seconds": 0.4}
    with open_remote_clients(2, **values) as remote, proxy(remote.port) as between:
        good, far = GoodClient(remote.address, 0), GoodClient(between.address, 1)
        with closed(good, far):
            connected(remote, 0, 1)
            assert remote.go(0) == {0: 1.0, 1: 2.0}
            between.freeze()
            begun = time.monotonic()
            assert remote.go(1) == {0: 1.0}  # without it, and long before the deadline
            assert time.monotonic() - begun < 10
            assert not remote.is_connected(1) and remote.ledger[1].lost == 1
            [welcome] = far.told("welcome")
            back = Stream(remote.address)  # by another way
            with closed(back):
                back.send(hello(client=1, incarnation=welcome.incarnation))
                connected(remote, 1)
                step: Future[Any] = pool.submit(remote.ask, 2)
                assert back.hear("welcome").go_on
                back.send(smashed(back.hear("step").step, 5.0))
                assert step.result(20) == {0: 1.0, 1: 5.0}


# ---- much of it


@pytest.mark.parametrize("number", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_messages_through_a_live_server_touch_neither_steps_nor_clients(
    number: int, caplog: pytest.LogCaptureFixture, pool: ThreadPoolExecutor
):
    caplog.set_level("ERROR")
    values = {"step_deadline_seconds": 0.05, "max_refusals": 10**6}
    with open_remote_clients(3, expected=expectation(ROWS), **values) as remote:
        good = [GoodClient(remote.address, client, shape=ROWS) for client in (0, 2)]
        attacker = Stream(remote.address)
        with closed(*good, attacker):
            attacker.send(hello(client=1))
            connected(remote, 0, 1, 2)
            step: Future[Any] = pool.submit(remote.go, 7)  # what the messages are of
            attacker.hear("welcome")
            attacker.hear("step")
            before = resident_bytes()
            for index, (_, data) in enumerate(mutated_messages(number)):
                attacker.send(data)
                if index % 30 == 0:
                    answers = step.result(20)  # `ask` has looked at each number
                    assert {0: answers[0], 2: answers[2]} == {0: 1.0, 2: 3.0}
                    step = pool.submit(remote.go, 8 + index)
            step.result(20)
            # The last one is heard of when all before it have been read.
            attacker.send(weights(9999))
            while (said := attacker.hear_any()) and "9999" not in said.refused.reason:
                pass
            assert remote.ledger[1].refusals > 0.8 * number
            assert resident_bytes() - before < 30 * 2**20
            assert caplog.text == ""  # no mistake of the server's
            assert [remote.ledger[c].lost for c in (0, 2)] == [0, 0]
            assert remote.go(9000)[0] == 1.0


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


LARGE = (4, 64, 32, 32)  # 1 MiB a tensor


def test_no_local_variable_of_the_server_keeps_smashed_data_alive_behind_its_step():
    with open_remote_clients(2, expected=expectation(LARGE)) as remote:
        good = [GoodClient(remote.address, client, shape=LARGE) for client in (0, 1)]
        with closed(*good):
            connected(remote, 0, 1)
            tracemalloc.start(8)
            try:
                for step in range(3):
                    assert set(remote.go(step)) == {0, 1}
                requests = {c: pb.StepRequest(step=3, number=3, num_rows=6) for c in (0, 1)}
                answers = remote.ask_step(requests, 0)
                held = server_bytes()  # by us
                del answers
                assert remote.ask_step({}, 0) == {}  # and now by nobody
                left = server_bytes()
            finally:
                tracemalloc.stop()
            assert held > 2**21 and left < 2**18


def server_bytes() -> int:
    """Return what our side of the streams has allocated; the clients are in this process, too."""
    ours = tracemalloc.Filter(True, "*/mocosfl/edge/*", all_frames=True)
    theirs = tracemalloc.Filter(False, f"{ROOT}/tests/*", all_frames=True)
    traces = tracemalloc.take_snapshot().filter_traces([ours, theirs])
    return sum(statistic.size for statistic in traces.statistics("filename"))


@pytest.mark.slow
def test_memory_is_flat_over_many_steps():
    with open_remote_clients(2, expected=expectation(LARGE)) as remote:
        good = [GoodClient(remote.address, client, shape=LARGE) for client in (0, 1)]
        with closed(*good):
            connected(remote, 0, 1)
            for step in range(200):
                assert set(remote.go(step)) == {0, 1}
                if step == 20:
                    before = resident_bytes()
            # 180 steps moved 1 GiB.
            assert resident_bytes() - before < 50 * 2**20
