"""A client takes part in a run, against servers that follow a script."""

import asyncio
import subprocess
import sys
import threading
import time
from typing import Any

import grpc
import numpy as np
import pytest

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.client import answers, server_connection
from mocosfl.edge.client.answers import NotWanted
from mocosfl.edge.client.client_head import ClientHead
from mocosfl.edge.client.participation import take_part
from mocosfl.edge.client.server_checks import check_welcome
from mocosfl.edge.client.server_connection import GaveUp, Retry, ServerAddress
from mocosfl.edge.client.tally import Tally
from mocosfl.edge.wire import Floats
from tests.support.recording_head import RecordingHead
from tests.support.scripted_server import (
    SETTINGS,
    SHAPE,
    Script,
    Talk,
    gradient,
    run,
    serving,
    step,
    weights,
    welcome,
)

pytestmark = pytest.mark.usefixtures("quick_retries")


def session(head: ClientHead, *scripts: Script, **arguments: Any) -> Tally:
    """Take part to the end against a server of these scripts."""

    async def both() -> Tally:
        async with serving(*scripts) as server:
            return await take_part(head, server, num_images=7, **arguments)

    return run(both())


def test_a_step_is_answered_with_smashed_data_and_after_its_gradient_with_weights() -> None:
    head, heard = RecordingHead(), []

    async def script(talk: Talk) -> None:
        heard.append(await talk.let_in())
        heard.append(await talk.ask(step=step(0, sync_after=True)))
        heard.append(await talk.ask(gradient=gradient(0)))
        await talk.say(head=pb.Head(step=1, online=weights(2)))
        heard.append(await talk.ask(keep=pb.Keep(step=1)))
        await talk.finish()

    tally = session(head, script, client=3)
    hello, smashed, sent, kept = heard
    assert hello == pb.Hello(protocol=wire.PROTOCOL, client=3, num_images=7)
    query = wire.decode_tensor(smashed.query, dtype=pb.FP32, shape=SHAPE, name="query")
    np.testing.assert_array_equal(query, head.query)
    key = wire.decode_tensor(smashed.key, dtype=pb.FP32, shape=SHAPE, name="key")
    np.testing.assert_array_equal(key, -head.query)
    assert sent.online == weights(1) and sent.momentum == weights(0)
    assert (smashed.step, sent.step, kept.step) == (0, 0, 1)
    calls = [("begin", "head"), ("smash", 0), ("learn", 8.0), "weights", ("take", 1), ("keep", 1)]
    assert head.calls == calls
    assert (tally.images, tally.steps, tally.left_out, tally.reconnects) == (2, 1, 0, 0)


def test_the_tally_counts_the_bytes_of_each_kind_of_message() -> None:
    sizes: dict[str, int] = {}

    async def script(talk: Talk) -> None:
        hello = await talk.let_in()
        sizes["hello"] = pb.ClientMessage(hello=hello).ByteSize()
        smashed = await talk.ask(step=step(0))
        sizes["smashed"] = pb.ClientMessage(smashed=smashed).ByteSize()
        await talk.say(gradient=gradient(0))
        await talk.finish()

    tally = session(RecordingHead(), script)
    assert tally.bytes_up == sizes
    assert tally.bytes_down["gradient"] == pb.ServerMessage(gradient=gradient(0)).ByteSize()
    assert f"{sum(sizes.values()):,} (" in tally.describe()


def test_frozen_heads_wait_for_no_gradient() -> None:
    head = RecordingHead(digest="d" * 64)
    settings = pb.Settings()
    settings.CopyFrom(SETTINGS)
    settings.frozen = True
    hellos: list[pb.Hello] = []

    async def script(talk: Talk) -> None:
        hellos.append(await talk.let_in(settings=settings, go_on=True))
        for number in range(3):
            await talk.ask(step=step(number, sync_after=True))
        await talk.finish()

    tally = session(head, script)
    assert (hellos[0].exported_head, hellos[0].head_digest) == (True, "d" * 64)
    assert head.calls == [("begin", "go_on"), ("smash", 0), ("smash", 1), ("smash", 2)]
    assert (tally.steps, tally.left_out) == (3, 0)


@pytest.mark.parametrize("with_step", [False, True])
def test_an_exported_head_is_never_replaced(with_step: bool) -> None:
    head, other = RecordingHead(digest="d" * 64), pb.Head(step=1, online=weights(2))

    async def faulty(talk: Talk) -> None:
        await talk.let_in(go_on=True)
        await talk.say(**({"step": step(0, head=other)} if with_step else {"head": other}))
        assert await talk.hear() is None

    async def sound(talk: Talk) -> None:
        await talk.let_in(go_on=True)
        await talk.finish()

    session(head, faulty, sound)
    assert head.calls == [("begin", "go_on")] * 2


def test_a_client_that_is_left_out_goes_on_with_the_next_step() -> None:
    head = RecordingHead()

    async def script(talk: Talk) -> None:
        await talk.let_in()
        await talk.ask(step=step(0))
        await talk.ask(step=step(1, head=pb.Head(step=1, online=weights(2))))
        await talk.ask(keep=pb.Keep(step=2))
        await talk.finish()

    tally = session(head, script)
    assert head.calls == [("begin", "head"), ("smash", 0), ("take", 1), ("smash", 1), ("keep", 2)]
    assert (tally.images, tally.steps, tally.left_out) == (4, 0, 2)


def test_a_refused_message_is_counted_and_the_session_goes_on() -> None:
    async def script(talk: Talk) -> None:
        await talk.let_in()
        await talk.ask(step=step(0))
        await talk.say(refused=pb.Refused(reason="too late", count=1, limit=3))
        await talk.ask(step=step(1))
        await talk.finish()

    tally = session(RecordingHead(), script)
    assert (tally.refused, tally.left_out) == (1, 2)


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED,
    ],
)
def test_a_client_that_is_not_wanted_ends_with_the_servers_words(code: grpc.StatusCode) -> None:
    async def script(talk: Talk) -> None:
        await talk.hear()
        await talk.context.abort(code, "client 3 is another one")

    with pytest.raises(NotWanted, match="client 3 is another one"):
        session(RecordingHead(), script)


def test_another_version_of_the_protocol_ends_the_session() -> None:
    async def script(talk: Talk) -> None:
        await talk.let_in(protocol=wire.PROTOCOL + 1)
        await talk.hear()

    with pytest.raises(NotWanted, match="install the same version"):
        session(RecordingHead(), script)


def test_a_client_comes_back_to_a_server_that_vanishes_and_says_what_it_has() -> None:
    head, hellos = RecordingHead(), []

    async def first(talk: Talk) -> None:
        hellos.append(await talk.let_in())
        await talk.ask(keep=pb.Keep(step=0))
        await talk.say(head=pb.Head(step=5, online=weights(2)))
        await talk.ask(step=step(0))
        hellos.append(await talk.hear())  # until the server stops

    async def second(talk: Talk) -> None:
        hellos.append(await talk.let_in(go_on=True))
        await talk.finish()

    async def vanish() -> Tally:
        tally = Tally()
        async with serving(first) as server:
            client = asyncio.create_task(take_part(head, server, num_images=7, tally=tally))
            while ("smash", 0) not in head.calls or not tally.bytes_up["smashed"]:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert not client.done()
        async with serving(second, port=int(server.address.split(":")[1])):
            return await client

    tally = run(vanish())
    assert hellos[-1].incarnation == "i" and hellos[-1].head_step == 5
    assert list(hellos[-1].kept) == [pb.KeptState(run="r", step=0, head_step=0)]
    assert head.calls[-1] == ("begin", "go_on")
    assert (tally.reconnects, tally.left_out) == (1, 1)


def test_a_server_that_will_be_back_is_called_again() -> None:
    async def leaving(talk: Talk) -> None:
        await talk.let_in()
        await talk.say(goodbye=pb.Goodbye(finished=False, text="restarting"))

    async def back(talk: Talk) -> None:
        await talk.let_in()
        await talk.finish()

    assert session(RecordingHead(), leaving, back).reconnects == 1


def test_a_farewell_is_heard_though_the_answer_to_it_can_no_longer_be_sent() -> None:
    class SlowHead(RecordingHead):
        def smash(self, request: pb.StepRequest) -> tuple[Floats, Floats]:
            ended.wait(5)
            return super().smash(request)

    ended = threading.Event()

    async def script(talk: Talk) -> None:
        await talk.let_in()
        await talk.say(step=step(0))
        await talk.finish()
        asyncio.get_running_loop().call_later(0.2, ended.set)

    async def again(talk: Talk) -> None:
        raise AssertionError("the client has come back")

    tally = session(SlowHead(), script, again)
    assert (tally.welcomes, tally.images) == (1, 2)


async def _garbage(talk: Talk) -> None:
    await talk.context.write(b"\xff\xff\xff")


async def _empty(talk: Talk) -> None:
    await talk.context.write(b"")


def _sends(**content: Any) -> Script:
    async def send(talk: Talk) -> None:
        await talk.say(**content)

    return send


BAD_SETTINGS = pb.Settings()
BAD_SETTINGS.CopyFrom(SETTINGS)
BAD_SETTINGS.batch_size = 2**31

FAULTS: dict[str, tuple[bool, Script]] = {  # whether the client is let in first, what follows
    "garbage": (True, _garbage),
    "empty": (True, _empty),
    "step before Welcome": (False, _sends(step=step(0))),
    "two Welcomes": (True, _sends(welcome=welcome())),
    "batch of gigabytes": (False, _sends(welcome=welcome(settings=BAD_SETTINGS))),
    "settings missing": (False, _sends(welcome=welcome(settings=pb.Settings()))),
    "head of NaN": (
        True,
        _sends(head=pb.Head(online=pb.Tensor(dtype=1, shape=[3], data=b"\xff" * 12, scale=1))),
    ),
    "head of another size": (True, _sends(head=pb.Head(online=pb.Tensor(dtype=1)))),
    "unasked gradient": (True, _sends(gradient=gradient(0))),
    "rows beyond the step": (True, _sends(step=step(0, first_row=3))),
    "step beyond the round": (True, _sends(step=step(10))),
    "rate of NaN": (
        True,
        _sends(step=pb.StepRequest(num_rows=4, learning_rate=float("nan"))),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_server_is_left_and_called_again(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    let_in, fails = FAULTS[fault]
    head = RecordingHead()

    async def faulty(talk: Talk) -> None:
        await (talk.let_in() if let_in else talk.hear())
        await fails(talk)
        assert await talk.hear() is None

    async def sound(talk: Talk) -> None:
        await talk.let_in()
        await talk.finish()

    session(head, faulty, sound)
    assert head.calls == [("begin", "head")] * (1 + let_in)
    assert "the server sent what can't be right" in caplog.text


def test_a_gradient_of_another_shape_never_reaches_the_head() -> None:
    head = RecordingHead()
    wrong = pb.Gradient(
        step=0, query=wire.encode_tensor(np.zeros((2, 1, 2, 3), np.float32), pb.FP32)
    )

    async def faulty(talk: Talk) -> None:
        await talk.let_in()
        await talk.ask(step=step(0))
        assert await talk.ask(gradient=wrong) is None

    async def sound(talk: Talk) -> None:
        await talk.let_in()
        await talk.finish()

    tally = session(head, faulty, sound)
    assert [call[0] for call in head.calls] == ["begin", "smash", "begin"]
    assert tally.left_out == 1


def test_a_client_gives_up_after_the_time_it_was_told(caplog: pytest.LogCaptureFixture) -> None:
    address = ServerAddress("127.0.0.1:1")  # where nobody listens
    with pytest.raises(GaveUp, match=r"gave up after 0\.3 s .*UNAVAILABLE"):
        run(take_part(RecordingHead(), address, num_images=7, give_up_after=0.3))
    assert caplog.text.count("trying again") == 1  # the same reason is told once
    assert "certificates" not in caplog.text


def test_giving_up_counts_from_when_the_server_was_last_there() -> None:
    retry = Retry(give_up_after=0.2)
    retry.reset()  # let in
    time.sleep(0.3)  # a healthy session, longer than that
    run(retry.wait("the first lost connection"))
    time.sleep(0.2)
    with pytest.raises(GaveUp):
        run(retry.wait("and nobody since"))


HARMFUL: dict[str, dict[str, Any]] = {
    "image_size": {"image_size": 2**32 - 1},
    "steps_per_round": {"steps_per_round": 2**32 - 1},
    "num_parameters": {"num_parameters": 2**32 - 1},
    "network.width": {"network": pb.Network(width=2**31)},
    "NaN": {"tau": float("nan")},
    "tau": {"tau": 1.5},
    "std": {"std": [0.0, 1.0, 1.0]},
    "infinite": {"views": pb.Views(hue=float("inf"))},
}


@pytest.mark.parametrize("name", HARMFUL)
def test_settings_that_would_take_a_devices_memory_are_refused(name: str) -> None:
    settings = pb.Settings()
    settings.CopyFrom(SETTINGS)
    for field, value in HARMFUL[name].items():
        settings.ClearField(field)
        settings.MergeFrom(pb.Settings(**{field: value}))
    with pytest.raises(wire.Refusal, match=r"^Settings"):
        check_welcome(pb.Welcome(settings=settings, go_on=True))
    check_welcome(pb.Welcome(settings=SETTINGS, go_on=True))


def test_a_server_that_does_not_answer_is_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "WELCOME_SECONDS", 0.2)

    async def silent(talk: Talk) -> None:
        await talk.hear()
        await talk.hear()

    async def sound(talk: Talk) -> None:
        await talk.let_in()
        await talk.finish()

    assert session(RecordingHead(), silent, sound).welcomes == 1


def test_waits_double_up_to_the_longest_and_begin_anew_after_a_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(server_connection, "FIRST_WAIT_SECONDS", 0.5)
    monkeypatch.setattr(asyncio, "sleep", note)

    async def try_often() -> None:
        retry = Retry()
        for _ in range(9):
            await retry.wait("gone")
        retry.reset()
        await retry.wait("gone")

    asyncio.run(try_often())
    longest = [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 0.5]
    for wait, bound in zip(waits, longest, strict=True):
        assert bound / 2 <= wait <= bound
    assert len(set(waits)) == len(waits)


def test_cancelling_waits_for_the_head_and_leaves_the_tally() -> None:
    class SlowHead(RecordingHead):
        def smash(self, request: pb.StepRequest) -> tuple[Floats, Floats]:
            started.set()
            released.wait(5)
            return super().smash(request)

    started, released = threading.Event(), threading.Event()
    head, tally = SlowHead(), Tally()

    async def script(talk: Talk) -> None:
        await talk.let_in()
        await talk.ask(step=step(0))

    async def cancel() -> None:
        async with serving(script) as server:
            client = asyncio.create_task(take_part(head, server, num_images=7, tally=tally))
            await asyncio.to_thread(started.wait, 5)
            client.cancel()
            asyncio.get_running_loop().call_later(0.1, released.set)
            with pytest.raises(asyncio.CancelledError):
                await client
            assert head.calls[-1] == ("smash", 0)

    run(cancel())
    assert tally.compute_seconds >= 0.1


def test_values_that_are_not_finite_end_the_session_with_a_way_out() -> None:
    head = RecordingHead()
    head.query[0] = np.nan

    async def script(talk: Talk) -> None:
        await talk.let_in()
        await talk.ask(step=step(0))

    with pytest.raises(ValueError, match="diverged"):
        session(head, script)


def test_several_sessions_live_in_one_process() -> None:
    connections: set[str] = set()

    async def script(talk: Talk) -> None:
        connections.add(talk.context.peer())
        await talk.let_in()
        for number in range(5):
            await talk.ask(step=step(number))
            await talk.say(gradient=gradient(number))
        await talk.finish()

    async def many() -> list[Tally]:
        async with serving(script) as server:
            sessions = (take_part(RecordingHead(), server, num_images=7) for _ in range(8))
            return await asyncio.gather(*sessions)

    assert [tally.steps for tally in run(many())] == [5] * 8
    assert len(connections) == 8


def test_no_message_is_kept_alive_while_the_next_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alive: list[int] = []

    class Counted(bytes):
        number = 0

        def __del__(self) -> None:
            Counted.number -= 1

    forward = server_connection.ServerConnection.read

    async def counted(self: server_connection.ServerConnection) -> bytes | None:
        alive.append(Counted.number)
        data = await forward(self)
        Counted.number += 1
        return None if data is None else Counted(data)

    monkeypatch.setattr(server_connection.ServerConnection, "read", counted)

    async def script(talk: Talk) -> None:
        await talk.let_in()
        for number in range(3):
            await talk.ask(step=step(number))
            await talk.say(gradient=gradient(number))
        await talk.ask(keep=pb.Keep(step=3))
        await talk.finish()

    session(RecordingHead(), script)
    assert alive == [0] * 9


def test_a_client_starts_without_torch() -> None:
    code = (
        "import sys, mocosfl.edge.client.__main__, mocosfl.edge.client.participation\n"
        "import mocosfl.edge.client.own_images\n"
        "import mocosfl.data.round_plan, mocosfl.edge.credentials\n"
        "heavy = {'torch', 'torchvision', 'hydra', 'omegaconf', 'pytorch_lightning', 'scipy'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
