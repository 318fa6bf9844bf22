"""Deal a data set to clients' folders: `python -m mocosfl.edge.deal --help`.

A client that is given its folder holds the images that a simulation of the same configuration deals
it, in the same order, and so draws the same ones.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mocosfl.config.hydra_setup import composed
from mocosfl.edge.client.own_images import ARRAY_NAME
from mocosfl.system.errors import user_errors
from mocosfl.system.files import replaced_file
from mocosfl.system.logs import setup_logging

if TYPE_CHECKING:
    from mocosfl.data.federated_data import FederatedData

DESCRIPTION = """\
Write FOLDER/<client>/images.npy for each client of a configuration: a federation to try on one
machine, or a data set to carry to devices.

  python -m mocosfl.edge.deal dealt dataset=cifar10 clients.num_clients=4 clients.batch_size=25
  python -m mocosfl.edge.client --data dealt/0 ...
"""


def main(arguments: list[str]) -> None:
    """Deal the images, and say who got how many."""
    chosen = _parsed(arguments)
    setup_logging()
    with user_errors():
        # Imported here, so that --help does not wait for torch.
        from mocosfl.data.federated_data import FederatedData
        from mocosfl.rules.validate import validate

        config = composed(chosen.overrides)
        validate(config)
        clients = _clients(chosen.clients, config.clients.num_clients)
        for line in deal(FederatedData(config), chosen.folder, clients):
            print(line)


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mocosfl.edge.deal",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where the clients' folders are written")
    parser.add_argument(
        "overrides", nargs="*", help="group=choice and group.key=value, as for train.py"
    )
    parser.add_argument(
        "--clients", metavar="FIRST-LAST", help="write these alone, for example 0-3, or 7"
    )
    return parser.parse_intermixed_args(arguments)


def _clients(text: str | None, num_clients: int) -> range:
    if text is None:
        return range(num_clients)
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text, re.ASCII)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not first <= last < num_clients:
        raise ValueError(
            f"--clients {text}: a client or FIRST-LAST, from 0 to {num_clients - 1} here "
            f"(clients.num_clients={num_clients})"
        )
    return range(first, last + 1)


def deal(data: "FederatedData", folder: Path, clients: range) -> list[str]:
    """Write clients' images.

    Args:
        data: whose images are dealt, and its partition.
        folder: of the clients' folders.
        clients: that are written.

    Returns:
        A line for each.

    Raises:
        ValueError: the images are pictures on disk, or a client's images.npy is there already.
    """
    images = data.dataset.train.images
    if not isinstance(images, np.ndarray):
        raise ValueError(
            f"dataset.source={data.config.dataset.source}: these are pictures on disk, and only "
            "arrays are dealt; copy the pictures into the clients' folders"
        )
    paths = {client: folder / str(client) / ARRAY_NAME for client in clients}
    for path in paths.values():
        if path.exists():
            raise ValueError(f"{path}: is there already; remove it, or choose another folder")
    lines = []
    for client, path in paths.items():
        own = data.partition.client(client)
        _save(path, images[own])
        lines.append(f"client {client:>5}  {len(own):>8,} images  {path}")
    return lines


def _save(path: Path, images: npt.NDArray[np.uint8]) -> None:
    """Write an array so that a kill leaves the whole file or none."""
    with replaced_file(path) as file:
        np.save(file, images)


if __name__ == "__main__":
    main(sys.argv[1:])
