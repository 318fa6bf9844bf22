"""Take part in a federation as one client: `python -m mocosfl.edge.client --help`.

Few imports: with an exported head this program runs where torch is not installed.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mocosfl.edge.client.tally import Tally
from mocosfl.system.addresses import parse_address

if TYPE_CHECKING:
    from mocosfl.edge.client.client_head import ClientHead
    from mocosfl.edge.client.own_images import OwnImages

logger = logging.getLogger(__name__)

DESCRIPTION = """\
Train with the images of one folder, together with the other clients of a server. Needs torch, but
not with --head. Goes on until the run is finished, comes back by itself when the server or the
network was away, and says at its end what it did. Ctrl-C ends it; started again it goes on.

  python -m mocosfl.edge.client --server lab.example:50061 --data images --certificates client_3
"""


def main(arguments: list[str]) -> int:
    """Run a client to its end; returns the exit code.

    0: the run is finished. 1: it could not go on, and said why. 128 + n: ended by signal n.
    """
    chosen = _parsed(arguments)
    logging.basicConfig(
        level=logging.DEBUG if chosen.verbose else logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
    )
    # Before they are imported. gRPC's own lines say less than ours, at each try anew.
    if not chosen.verbose:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        logging.getLogger("asyncio").setLevel(logging.WARNING)
    os.environ["OMP_NUM_THREADS"] = str(chosen.threads)
    from mocosfl.edge.client.own_images import OwnImages
    from mocosfl.edge.client.participation import take_part
    from mocosfl.edge.client.server_connection import ServerAddress
    from mocosfl.edge.credentials import read_credentials

    try:
        credentials = None
        if not chosen.insecure:
            credentials = read_credentials(chosen.certificates, "--certificates").for_client()
        server = ServerAddress(chosen.server, credentials)
        if chosen.insecure and not server.is_loopback:
            logger.warning(
                "--insecure: nothing is encrypted and nobody proves who he is; whoever can reach "
                "the network between here and %s can read and change what is sent",
                chosen.server,
            )
        images = OwnImages(chosen.data)
        head, tally = _head(chosen, images), Tally()
        participation = take_part(
            head,
            server,
            num_images=len(images),
            client=chosen.client,
            give_up_after=chosen.give_up_after,
            tally=tally,
        )
        try:
            return asyncio.run(_until_a_signal(participation))
        finally:
            print(tally.describe(), flush=True)
    except (ValueError, OSError) as error:
        logger.debug("stopped", exc_info=True)
        sys.stderr.write(f"\nmocosfl: {error}\n")
        return 1


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mocosfl.edge.client",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--server", required=True, metavar="HOST:PORT", type=_address)
    add(
        "--data",
        required=True,
        metavar="FOLDER",
        type=Path,
        help="with images.npy, uint8 (n, H, H, 3), or with pictures",
    )
    add(
        "--certificates",
        metavar="FOLDER",
        type=Path,
        help="with ca.pem, cert.pem, key.pem; cert.pem says which client this is",
    )
    add("--client", metavar="ID", type=int, help="which client this is, where no certificate says")
    add("--insecure", action="store_true", help="in the clear, without certificates")
    add(
        "--head",
        metavar="FILE",
        type=Path,
        help="an exported, frozen head to run, without torch (python -m mocosfl.export)",
    )
    add(
        "--state",
        metavar="FOLDER",
        type=Path,
        help="where a training head is kept, so that this program, started again, goes on with it",
    )
    add(
        "--give-up-after",
        metavar="SECONDS",
        type=float,
        help="end after so long without the server; default: never",
    )
    add("--threads", metavar="N", type=int, default=1, help="for computing; default: %(default)s")
    add("--verbose", action="store_true", help="say more, also what gRPC says")
    chosen = parser.parse_args(arguments)
    _check(chosen, parser)
    return chosen


def _check(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if chosen.insecure and chosen.certificates is not None:
        parser.error("--insecure: leave it out, or leave out --certificates")
    if not chosen.insecure and chosen.certificates is None:
        parser.error(
            "--certificates: name the folder with this client's ca.pem, cert.pem and key.pem "
            "(python -m mocosfl.edge.certificates makes them), or say --insecure"
        )
    if chosen.insecure and chosen.client is None:
        parser.error("--client: needed with --insecure, where no certificate says who this is")
    if chosen.client is not None and not 0 <= chosen.client < 2**32:
        parser.error(f"--client {chosen.client}: a number from 0 to {2**32 - 1}")
    if chosen.threads < 1:
        parser.error(f"--threads {chosen.threads}: at least 1")
    if chosen.give_up_after is not None and not chosen.give_up_after >= 0:
        parser.error(f"--give-up-after {chosen.give_up_after}: seconds, at least 0")
    if chosen.head is not None and chosen.state is not None:
        parser.error("--state: leave it out; an exported head does not change")


def _address(text: str) -> str:
    try:
        parse_address(text, least_port=1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _head(chosen: argparse.Namespace, images: "OwnImages") -> "ClientHead":
    try:
        if chosen.head is not None:
            from mocosfl.edge.client.frozen_head import FrozenHead

            return FrozenHead(images, chosen.head)
        import torch

        from mocosfl.edge.client.training_head import TrainingHead
    except ModuleNotFoundError as error:
        kind, way_out = "that trains", ", or run an exported head with --head"
        if chosen.head is not None:
            kind, way_out = "that was exported", ""
        raise ValueError(
            f"a head {kind} needs {error.name}, which is not installed; install it{way_out}"
        ) from error
    torch.set_num_threads(chosen.threads)
    return TrainingHead(images, chosen.state)


async def _until_a_signal(participation: Coroutine[Any, Any, object]) -> int:
    """Take part to the end, or until this program is asked to end; returns the exit code."""
    running = asyncio.ensure_future(participation)
    ended_by: list[int] = []

    def end(number: int) -> None:
        ended_by.append(number)
        running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    try:
        await running
    except asyncio.CancelledError:
        if not ended_by:
            raise
        logger.info("ended by %s", signal.Signals(ended_by[0]).name)
        return 128 + ended_by[0]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
