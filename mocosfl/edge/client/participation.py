"""A client's part in a run: it connects, answers, and comes back when it is cut off. No torch."""

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.client.answers import Answerer, Lost
from mocosfl.edge.client.client_head import ClientHead
from mocosfl.edge.client.server_connection import Retry, ServerAddress, ServerConnection
from mocosfl.edge.client.tally import Tally
from mocosfl.edge.wire import Refusal


async def take_part(
    head: ClientHead,
    server: ServerAddress,
    *,
    num_images: int,
    client: int | None = None,
    give_up_after: float | None = None,
    tally: Tally | None = None,
) -> Tally:
    """Take part in a run until it is finished, through all interruptions.

    Args:
        head: what the client runs.
        server: where to.
        num_images: that the client holds.
        client: who it says it is; its certificate decides.
        give_up_after: seconds without the server after which to end; None: never.
        tally: counted into; read it where the client is cancelled.

    Returns:
        What was done.

    Raises:
        NotWanted: the server doesn't want this client.
        GaveUp: it was away for too long.
        ValueError: the client's images or its program do not fit the run.
    """
    tally = Tally() if tally is None else tally
    retry = Retry(give_up_after)
    hello = pb.Hello(
        protocol=wire.PROTOCOL,
        num_images=num_images,
        client=client,
        exported_head=bool(head.digest),
        head_digest=head.digest,
    )
    while True:
        try:
            async with ServerConnection(server) as connection:
                await Answerer(head, connection, tally, retry).run(hello)
            return tally
        except Lost as lost:
            reason = str(lost)
        except Refusal as refusal:
            reason = f"the server sent what can't be right: {refusal}"
        await retry.wait(reason)
