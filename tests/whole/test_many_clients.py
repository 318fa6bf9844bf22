"""100,000 clients cost what their pool costs."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from mocosfl.config.schema import Config
from mocosfl.data.federated_data import FederatedData
from mocosfl.overhead.plan import make_plan
from mocosfl.runs.folder import RunFolder
from mocosfl.training.run import train
from tests.support.configurations import Compose
from tests.support.small_federation import bank_bytes

MANY = 100_000
POOL = 10


def write_repeated_digits(folder: Path, num_images: int) -> list[str]:
    """Write the digits over and over, and return the overrides that name them."""
    digits = load_digits()
    images: NDArray[np.uint8] = np.repeat((digits.images * 15).astype(np.uint8)[..., None], 3, 3)
    folder.mkdir()
    for split, number in (("train", num_images), ("test", 100)):
        rows = np.arange(number) % len(images)
        np.save(folder / f"{split}_images.npy", images[rows])
        np.save(folder / f"{split}_labels.npy", digits.target[rows].astype(np.int64))
    names = ["dataset=arrays", f"dataset.path={folder}"]
    return [*names, "dataset.image_size=8", "dataset.num_classes=10"]


@pytest.fixture
def many(compose_quick: Compose, tmp_path: Path) -> Config:
    """Return 100,000 clients with two images each, ten of them in the pool."""
    shape = [
        f"clients.num_clients={MANY}",
        f"clients.participation={POOL / MANY}",
        "clients.batch_size=1",
        "clients.client_state=stateless",
        "trainer.max_steps=3",  # into the second round
        "callbacks.pictures=true",
        "callbacks.knn_every_rounds=0",
    ]
    data: Sequence[str] = write_repeated_digits(tmp_path / "digits", 2 * MANY)
    return compose_quick([*data, *shape])


@pytest.mark.slow
def test_hundred_thousand_clients_train_in_the_memory_of_their_pool(many: Config) -> None:
    folder = RunFolder(Path(many.run_dir))

    module = train(many, folder, resume=False)

    data = FederatedData(many)
    head = sum(parameter.numel() for parameter in module.federation.clients.head.parameters())
    plan = make_plan(many, data.partition.counts)
    assert module.global_step == 3
    assert bank_bytes(module.federation.clients.bank) == plan.bank_bytes == 3 * 4 * head
    stacked = [len(p) for p in module.federation.clients.online.parameters()]
    assert set(stacked) == {POOL}
    assert folder.last.stat().st_size < 10**6  # a bank of all would be 140 MB
    assert len(json.loads(folder.partition.read_text())["offsets"]) == MANY + 1
    assert (folder.pictures / "partition.png").is_file()
