"""Dealing a data set: each client's folder holds what the partition gives it, in its order."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mocosfl.config.hydra_setup import composed
from mocosfl.data.federated_data import FederatedData
from mocosfl.edge.deal import main


@pytest.fixture
def overrides(data_dir: Path) -> list[str]:
    return [f"data_dir={data_dir}", "dataset=digits", "clients.num_clients=6", "partition=shards"]


def test_each_client_gets_its_images_in_the_order_of_the_partition(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(tmp_path), *overrides])
    data = FederatedData(composed(overrides))
    for client in range(6):
        dealt = np.load(tmp_path / str(client) / "images.npy")
        expected = data.dataset.train.images[data.partition.client(client)]
        np.testing.assert_array_equal(dealt, np.asarray(expected))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and "client     0" in lines[0]


def test_some_clients_alone_are_written_and_nothing_is_overwritten(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(tmp_path), *overrides, "--clients", "1-2"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    with pytest.raises(SystemExit):
        main([str(tmp_path), *overrides, "--clients", "2-3"])
    assert "2/images.npy: is there already" in capsys.readouterr().err
    assert not (tmp_path / "3").exists()


@pytest.mark.parametrize("clients", ["6", "3-1", "a", "1-", "-1"])
def test_clients_that_are_not_there_are_refused(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], clients: str
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "new"), *overrides, f"--clients={clients}"])
    assert "from 0 to 5 here" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_pictures_are_not_dealt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / "pictures" / "train" / name).mkdir(parents=True)
        for number in range(30):
            image = Image.new("RGB", (16, 16), (number, 0, 0))
            image.save(tmp_path / "pictures" / "train" / name / f"{number}.png")
    overrides = [
        "dataset=image_folder",
        "dataset.source=pictures",
        "dataset.name=mine",
        f"dataset.path={tmp_path / 'pictures'}",
        "dataset.num_classes=2",
        "clients.num_clients=2",
        "clients.batch_size=2",
        "callbacks.knn_num_neighbors=5",
        "callbacks.probe_at_end=false",
        "partition=iid",
        "dataset.image_size=16",
    ]
    with pytest.raises(SystemExit):
        main([str(tmp_path / "new"), *overrides])
    assert "pictures on disk, and only arrays are dealt" in capsys.readouterr().err
