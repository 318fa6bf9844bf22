"""The server's side of one client's talk, without the network: what is refused, and what not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.server.client_requests import KEPT, SMASHED, WEIGHTS, ClientRequests
from mocosfl.edge.server.traffic_ledger import Account, Ledger
from tests.support.edge_streams import (
    NUM_PARAMETERS,
    SHAPE,
    expectation,
    head,
    hello,
    smashed,
    tensor,
    weights,
)


class Talk:
    """What a client and the server say, and what came out of it."""

    def __init__(self, max_refusals: int = 100, **changes: Any) -> None:
        self.delivered: list[tuple[int, str, Any]] = []
        self.account = Account()
        self.requests = ClientRequests(
            3,
            expectation()._replace(**changes),
            self.account,
            max_refusals=max_refusals,
            deliver=lambda *answer: self.delivered.append(answer),
        )
        self.requests.welcome(pb.Welcome(client=3, head=head(0)), 0)

    def hear(self, message: pb.ClientMessage | bytes) -> None:
        data = message if isinstance(message, bytes) else message.SerializeToString()
        self.requests.receive(data)

    def said(self) -> list[pb.ServerMessage]:
        """Return what is to be sent since the last call."""
        messages = [pb.ServerMessage.FromString(data) for data in self.requests.outbox]
        self.requests.outbox.clear()
        return messages

    def reason(self) -> str:
        """Return why the last message was refused."""
        last = self.said()[-1]
        assert last.WhichOneof("content") == "refused"
        return last.refused.reason


@pytest.fixture
def talk() -> Talk:
    """A client that has been asked for step 7."""
    talk = Talk()
    talk.requests.ask_step(pb.StepRequest(step=7))
    talk.said()
    return talk


def with_query(query: pb.Tensor, step: int = 7) -> pb.ClientMessage:
    return pb.ClientMessage(smashed=pb.Smashed(step=step, query=query, key=tensor(1)))


def nan_query() -> pb.Tensor:
    query = tensor(1)
    query.data = np.full(SHAPE, np.nan, "<f4").tobytes()
    return query


def test_smashed_data_that_are_asked_for_are_delivered_as_they_were_sent(talk: Talk):
    talk.hear(smashed(7, 2.5))
    [(client, kind, pair)] = talk.delivered
    assert (client, kind) == (3, SMASHED)
    np.testing.assert_array_equal(pair.first, np.full(SHAPE, 2.5, np.float32))
    np.testing.assert_array_equal(pair.second, np.full(SHAPE, -2.5, np.float32))
    assert talk.requests.idle and talk.account.steps == 1 and not talk.said()


def test_one_question_is_open_at_a_time(talk: Talk):
    assert not talk.requests.idle
    with pytest.raises(AssertionError):
        talk.requests.ask_step(pb.StepRequest(step=8))


@pytest.mark.parametrize("step", [0, 6, 8, 2**64 - 1])
def test_smashed_data_of_another_step_are_refused_and_the_question_stays(talk: Talk, step: int):
    talk.hear(smashed(step))
    assert f"smashed of step {step}, and smashed of step 7 is asked for" in talk.reason()
    assert talk.delivered == [] and talk.requests.open_request is not None
    talk.hear(smashed(7))
    assert len(talk.delivered) == 1


def test_the_same_smashed_data_twice_are_refused_the_second_time(talk: Talk):
    talk.hear(smashed(7))
    talk.hear(smashed(7))
    assert talk.reason() == "Smashed of step 7 has come before"
    assert len(talk.delivered) == 1 and talk.account.steps == 1


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (weights(7), "weights of step 7, and smashed of step 7 is asked for"),
        (pb.ClientMessage(kept=pb.Kept(step=7)), "kept of step 7, and smashed of step 7"),
        (hello(), "Hello was said already"),
        (b"\xff\xff\xff", "3 bytes that are no message"),
        (b"", "a message without content"),
    ],
    ids=["weights", "kept", "hello", "garbage", "empty"],
)
def test_another_answer_than_asked_for_is_refused(
    talk: Talk, message: pb.ClientMessage | bytes, reason: str
):
    talk.hear(message)
    assert reason in talk.reason()
    assert talk.delivered == [] and talk.account.refusals == 1


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (nan_query, "Smashed.query: has NaN or infinite values"),
        (lambda: tensor(1, (2, 1, 2, 3)), "Smashed.query: shape (2, 1, 2, 2) expected"),
        (lambda: tensor(1, (2, 4)), "Smashed.query: shape (2, 1, 2, 2) expected, (2, 4) came"),
        (
            lambda: wire.encode_tensor(np.ones(SHAPE), pb.FP64),
            "Smashed.query: FP32 expected, FP64 came",
        ),
        (lambda: pb.Tensor(), "Smashed.query: FP32 expected, DTYPE_UNSPECIFIED came"),
    ],
    ids=["nan", "shape", "dimensions", "type", "empty"],
)
def test_an_answer_with_wrong_tensors_ends_the_wait_for_it(
    talk: Talk, query: Callable[[], pb.Tensor], reason: str
):
    talk.hear(with_query(query()))
    assert reason in talk.reason()
    assert talk.delivered == [(3, SMASHED, None)]  # nobody waits until the deadline
    assert talk.requests.idle and talk.account.steps == 0


def test_a_message_above_what_is_expected_is_not_even_parsed(talk: Talk):
    limit = talk.requests.expectation.max_message_bytes
    talk.hear(bytes(limit + 1))
    assert talk.reason() == f"a message of {limit + 1} bytes, at most {limit} are expected"


def test_an_overdue_answer_is_read_and_not_used(talk: Talk):
    talk.requests.give_up_waiting()
    assert not talk.requests.idle  # asked anew only when the answer has come
    assert talk.account.late_steps == 1
    talk.hear(smashed(7))
    assert talk.delivered == [(3, SMASHED, None)]
    assert talk.requests.idle and talk.account.steps == 0 and talk.account.refusals == 0


def test_weights_are_asked_for_behind_the_gradient_of_a_step_with_a_sync(talk: Talk):
    talk.hear(smashed(7))
    talk.requests.send_gradient(7, np.ones(SHAPE, np.float32), sync_after=True)
    assert not talk.requests.idle
    talk.hear(weights(7, 4.0))
    client, kind, pair = talk.delivered[-1]
    assert (client, kind) == (3, WEIGHTS) and pair.second is None
    np.testing.assert_array_equal(pair.first, np.full(NUM_PARAMETERS, 4.0))
    assert talk.account.syncs == 1


def test_weights_with_or_without_a_momentum_head_are_as_agreed():
    one = tensor(1, (NUM_PARAMETERS,))
    for align in (False, True):
        talk = Talk(align_momentum=align)
        talk.requests.ask_step(pb.StepRequest(step=0))
        talk.hear(smashed(0))
        talk.requests.send_gradient(0, np.ones(SHAPE, np.float32), sync_after=True)
        other = pb.Weights(step=0, online=one, momentum=None if align else one)
        talk.hear(pb.ClientMessage(weights=other))
        assert "Weights.momentum: is" in talk.reason()
        assert talk.delivered[-1] == (3, WEIGHTS, None)


def test_kept_is_delivered_with_its_step():
    talk = Talk()
    talk.requests.ask_keep(9)
    talk.hear(pb.ClientMessage(kept=pb.Kept(step=9)))
    assert talk.delivered == [(3, KEPT, 9)] and talk.requests.idle


def test_a_client_is_banned_at_the_limit_and_not_before():
    talk = Talk(max_refusals=3)
    for number in (1, 2):
        talk.hear(b"\xff")
        assert talk.said()[-1].refused.count == number
        assert talk.requests.banned_for is None
    talk.hear(b"\xff")
    assert talk.requests.banned_for is not None and "3 messages were refused" in (
        talk.requests.banned_for
    )
    assert not talk.requests.idle


def test_refusals_count_anew_in_a_new_server_process():
    ledger = Ledger([3])
    ledger[3].refusals = ledger[3].strikes = 9
    later = Ledger([3])
    later.load_state_dict(ledger.state_dict())
    assert (later[3].refusals, later[3].strikes) == (9, 0)


def test_what_a_lost_connection_had_sent_is_not_read_any_more(talk: Talk):
    talk.requests.over = True
    talk.hear(smashed(7))
    assert talk.delivered == [] and talk.account.up == 0


def test_all_bytes_of_refused_messages_count_as_other(talk: Talk):
    data = with_query(nan_query()).SerializeToString()
    talk.hear(data)
    assert talk.account.up == talk.account.other_up == len(data)


def test_nothing_is_asked_before_the_welcome():
    requests = ClientRequests(0, expectation(), Account(), max_refusals=1, deliver=lambda *_: None)
    assert not requests.idle


def test_values_that_would_overflow_in_the_server_are_refused(talk: Talk):
    talk.hear(with_query(tensor(1e7)))
    assert "values of at most 1e+06 expected, 1e+07 came" in talk.reason()
    assert talk.delivered == [(3, SMASHED, None)]


def test_weights_that_would_spoil_the_mean_are_refused(talk: Talk):
    talk.hear(smashed(7))
    talk.requests.send_gradient(7, np.zeros(SHAPE, np.float32), sync_after=True)
    talk.hear(weights(7, 1e4))
    assert "values of at most 1000 expected" in talk.reason()
    assert talk.delivered[-1] == (3, WEIGHTS, None)


def test_client_that_reads_nothing_is_disconnected_before_its_messages_pile_up():
    talk = Talk(max_refusals=1000)
    for _ in range(200):
        talk.hear(b"garbage")
    assert len(talk.requests.outbox) <= 64
    assert talk.requests.banned_for == "it has left 64 messages unread"
