"""How a client is let in: who it is, and with which state it goes on."""

from collections.abc import Callable, Container

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.wire import Refusal

HeadOf = Callable[[int], pb.Head]

MAX_KEPT = 16  # states that a Hello may name

MAX_IMAGES = 10**8  # that a client may say it holds


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
