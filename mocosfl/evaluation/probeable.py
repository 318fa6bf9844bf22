"""What the probes need of a data set; without matplotlib, so that a run's plan can ask first."""

from mocosfl.data.cache import ImageDataset


def check_probeable(name: str, dataset: ImageDataset, num_neighbors: int, key: str) -> None:
    """Check that a data set has what the probes need.

    Args:
        name: of the data set.
        dataset: to probe with.
        num_neighbors: k of kNN.
        key: full key that k was set by, for the message.

    Raises:
        ValueError: no test images, or more neighbours than training images.
    """
    if dataset.test is None:
        raise ValueError(
            f"dataset.name={name}: has no test images to probe with; put test_images.npy and "
            "test_labels.npy into its folder"
        )
    num_training = len(dataset.train.labels)
    if not 1 <= num_neighbors <= num_training:
        raise ValueError(
            f"{key}={num_neighbors}: must be from 1 to the {num_training} training images"
        )
