"""How a client is let in: who it is, and with which state it starts.

`Admission` reads the first message of a stream. A client that it lets in waits for its Welcome,
which `welcome_to` writes when the training waits for a step.
"""

from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple

import grpc

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.certificate_names import client_of
from mocosfl.edge.server.client_settings import RemoteClient
from mocosfl.edge.server.traffic_ledger import Ledger
from mocosfl.edge.wire import Refusal

HeadOf = Callable[[int], pb.Head]
MAX_KEPT = 16  # states that a Hello may name
MAX_IMAGES = 10**8  # that a client may say it holds


class Standing(NamedTuple):
    """Where a run stands when this server process takes its first step."""

    run: str  # its name, the same in each process that resumes it
    incarnation: str  # of this process
    step: int  # steps that are done
    head_of: HeadOf  # the head that a client is to have now; call it while the training waits


class Admission:
    """Decides whether a new stream is a client of the run."""

    def __init__(
        self,
        clients: Mapping[int, RemoteClient],
        ledger: Ledger,
        *,
        with_certificates: bool,
        max_refusals: int,
    ) -> None:
        """Keep what decides.

        Args:
            clients: the remote clients by id.
            ledger: their accounts.
            with_certificates: whether a certificate says who a client is; else it says so itself.
            max_refusals: messages of a client that are refused before it is kept out for the life
                of this process.
        """
        self.clients, self.ledger = clients, ledger
        self.with_certificates, self.max_refusals = with_certificates, max_refusals

    def admit(self, data: Any, context: Any) -> tuple[int, pb.Hello]:
        """Return which client a stream is, and its Hello.

        Args:
            data: the first message; gRPC's EOF where the stream has ended.
            context: of the stream, gRPC's.

        Raises:
            Refusal: it is none of this run's, or not who it says.
        """
        if data is grpc.aio.EOF:
            raise Refusal("the stream ended without a Hello")
        message = wire.parse_client_message(data, max_bytes=wire.ENVELOPE_BYTES)
        if message.WhichOneof("content") != "hello":
            raise Refusal("a stream begins with Hello")
        hello = message.hello
        client = check_hello(hello, self._certified(context), self.clients)
        check_kind(hello, self.clients[client].settings)
        if self.ledger[client].strikes >= self.max_refusals:
            raise Refusal(
                f"client {client} was disconnected after {self.max_refusals} messages that were "
                "refused; start the server again to let it in"
            )
        return client, hello

    def _certified(self, context: Any) -> int | None:
        if not self.with_certificates:
            return None
        name = b"".join(context.auth_context().get("x509_common_name", [])).decode(errors="replace")
        client = client_of(name)
        if client is None:
            raise Refusal(f"its certificate is of {name!r}, which is no client")
        return client


def welcome_to(
    client: int, settings: pb.Settings, hello: pb.Hello, standing: Standing
) -> tuple[pb.Welcome, int]:
    """Return a client's Welcome, and Head.step of the head that the client then has."""
    welcome = pb.Welcome(
        protocol=wire.PROTOCOL,
        run=standing.run,
        incarnation=standing.incarnation,
        client=client,
        settings=settings,
    )
    given = choose_start(welcome, hello, resumed_step=standing.step, head_of=standing.head_of)
    return welcome, given


def check_hello(hello: pb.Hello, certified: int | None, clients: Container[int]) -> int:
    """Return which client says Hello.

    Args:
        hello: its message.
        certified: who its certificate says it is; None without encryption.
        clients: ids of the run's remote clients.

    Raises:
        Refusal: it is none of them, or says it is another one, or speaks another language.
    """
    if hello.protocol != wire.PROTOCOL:
        raise Refusal(
            f"protocol {hello.protocol}, and this server speaks {wire.PROTOCOL}; install the same "
            "version of mocosfl on both sides"
        )
    named = hello.client if hello.HasField("client") else None
    if certified is not None and named not in (None, certified):
        raise Refusal(f"it says it is client {named}, and its certificate is client {certified}'s")
    client = named if certified is None else certified
    if client is None:
        raise Refusal("without certificates a client must say which one it is (--client ID)")
    if client not in clients:
        raise Refusal(f"client {client} is none of this run's remote clients (edge.num_remote)")
    if not 1 <= hello.num_images <= MAX_IMAGES or len(hello.kept) > MAX_KEPT:
        raise Refusal(
            f"Hello: 1 to {MAX_IMAGES} images and at most {MAX_KEPT} kept states expected, "
            f"{hello.num_images} and {len(hello.kept)} came"
        )
    return client


def check_kind(hello: pb.Hello, settings: pb.Settings) -> None:
    """Check that a client runs what the federation trains.

    Raises:
        Refusal: an exported head where heads are trained, or another head than the others'.
    """
    if not hello.exported_head:
        return
    if not settings.frozen:
        raise Refusal(
            "an exported head can't be trained, and this run trains the heads; leave --head out, "
            "or run the server with taressfl=on"
        )
    if hello.head_digest != settings.head_digest:
        raise Refusal(
            "its exported head is another one than this run's; export it from the same expert "
            "(python -m mocosfl.export head)"
        )


def choose_start(
    welcome: pb.Welcome, hello: pb.Hello, *, resumed_step: int, head_of: HeadOf
) -> int:
    """Say in a Welcome with which state a client goes on.

    With its live one, where that comes from this server process; with what it kept at the
    checkpoint that this process went on from; else from the head that the server gives it.

    Args:
        welcome: to the client, without `start`; changed.
        hello: of the client.
        resumed_step: steps of the run that were done when this server process began.
        head_of: returns the head that a client is to have now.

    Returns:
        Head.step of the head that the client then has.
    """
    if hello.exported_head:
        welcome.go_on = True
        return 0
    if hello.incarnation == welcome.incarnation:
        welcome.go_on = True
        return hello.head_step
    for kept in hello.kept:
        if kept.run == welcome.run and kept.step == resumed_step:
            welcome.restore_step = kept.step
            return kept.head_step
    welcome.head.CopyFrom(head_of(welcome.client))
    return welcome.head.step
