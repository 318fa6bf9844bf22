"""A partition given back: the same images, and each misfit named."""

from pathlib import Path

import numpy as np
import pytest

from mocosfl.data.federated_data import FederatedData
from mocosfl.data.partition import Partition
from mocosfl.data.partition_file import read_partition
from mocosfl.runs.folder import RunFolder
from mocosfl.training.run import train
from tests.support.configurations import Compose

ORDER, OFFSETS = np.array([4, 0, 7, 2, 9]), np.array([0, 2, 5])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "partition.json"
    Partition(ORDER, OFFSETS).save(path)
    return path


def read(path: Path, *, num_clients: int = 2, training: int = 10, num_images: int = 10):
    return read_partition(
        str(path), num_clients=num_clients, training=np.arange(training), num_images=num_images
    )


def test_file_and_its_folder_give_the_same_partition(saved: Path):
    for path in (saved, saved.parent):
        made = read(path)
        np.testing.assert_array_equal(made.order, ORDER)
        np.testing.assert_array_equal(made.offsets, OFFSETS)


def test_images_left_to_no_client_are_logged(saved: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"):
        read(saved)
    assert "leaves 5 of the training images to no client" in caplog.text


def test_missing_file_is_named(tmp_path: Path):
    for path in (tmp_path, tmp_path / "nothing.json"):
        with pytest.raises(FileNotFoundError, match=r"partition\.path=.*: no such file; name the"):
            read(path)


def test_file_that_is_no_partition_is_named(saved: Path):
    for content in (b"{}", b"\xff\xfe", b'{"offsets": [0, 1], "order": [1.5]}'):
        saved.write_bytes(content)
        with pytest.raises(ValueError, match=r"partition\.path=.*: no partition \(.*\); name the"):
            read(saved)


def test_other_number_of_clients_is_refused(saved: Path):
    message = r"deals to 2 clients, and clients\.num_clients=3; set clients\.num_clients=2"
    with pytest.raises(ValueError, match=message):
        read(saved, num_clients=3)


def test_image_beyond_the_data_set_is_refused(saved: Path):
    with pytest.raises(ValueError, match="deals image 9, and the data set has images 0 to 8"):
        read(saved, training=9, num_images=9)
    Partition(np.array([3, -1]), np.array([0, 1, 2])).save(saved)
    with pytest.raises(ValueError, match="deals image -1, and the data set has images 0 to 9"):
        read(saved)


def test_held_out_image_is_refused(saved: Path):
    message = r"deals image 9, which is held out .*\(1 such images\); use .*fraction=0"
    with pytest.raises(ValueError, match=message):
        read(saved, training=9)


@pytest.mark.slow
def test_run_goes_on_with_its_own_copy_of_the_given_partition(
    compose_quick: Compose, quick_run: RunFolder, tmp_path: Path
):
    given, folder = tmp_path / "given.json", RunFolder(tmp_path / "run")
    partition = Partition.load(quick_run.partition)
    partition.save(given)
    config = compose_quick(["partition=file", f"partition.path={given}", "trainer.max_steps=2"])
    train(config, folder, resume=False)
    assert folder.partition.read_text() == quick_run.partition.read_text()
    train(config, folder, resume=True)

    given.unlink()
    train(config, folder, resume=True)


def test_given_partition_must_hold_what_heterogeneity_says_of_the_rich(
    compose_quick: Compose, quick_run: RunFolder
):
    given = ["partition=file", f"partition.path={quick_run.path}", "heterogeneity=rich_poor"]
    small = ["heterogeneity.rich_batch_factor=2", "heterogeneity.rich_fraction=0.5"]
    with pytest.raises(ValueError, match=r"rich_data_fraction=0\.8: .* 50 clients hold 0\.498"):
        FederatedData(compose_quick([*given, *small]))
    FederatedData(compose_quick([*given, *small, "heterogeneity.rich_data_fraction=0.5"]))
