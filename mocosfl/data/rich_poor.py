"""Rich and poor clients: the first few hold most of the images (`heterogeneity=`).

The images are divided at random, class by class in proportion; within each side they are dealt to
its clients as among equals. So a rich client differs in how much it holds, not in what.

Source: MocoSFL's setting "0.2_0.8|16|0.8_0.2": 20 % of the clients hold 80 % of the images.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mocosfl.data.partition import Partition
from mocosfl.system.randomness import numpy_generator

_Ints = npt.NDArray[np.int64]
# Labels of a side's images, (m,), its number of clients and its name -> who holds which of them.
Deal = Callable[[_Ints, int, str], Partition]
_TOLERANCE = 0.01  # of all images, in the share of the rich


def deal_rich_and_poor(
    deal: Deal,
    labels: _Ints,
    *,
    num_rich: int,
    num_clients: int,
    rich_data_fraction: float,
    seed: int,
) -> Partition:
    """Deal images to rich clients and to the others.

    Args:
        deal: deals one side's images among its clients.
        labels: labels of all training images, (M,).
        num_rich: rich clients, the first ones; at least 1, below `num_clients`.
        num_clients: N.
        rich_data_fraction: part of the images that the rich hold together, in (0, 1).
        seed: at least 0.

    Raises:
        ValueError: a side has fewer images than clients, or they can't be dealt.
    """
    rich, poor = _divide(labels, rich_data_fraction, numpy_generator(seed, "rich and poor"))
    sides = []
    for name, images, clients in (
        ("rich", rich, num_rich),
        ("poor", poor, num_clients - num_rich),
    ):
        setting = f"heterogeneity.rich_data_fraction={rich_data_fraction}"
        if len(images) < clients:
            raise ValueError(
                f"{setting}: leaves {len(images)} images to {clients} {name} clients; give that "
                "side more, or lower clients.num_clients"
            )
        try:
            side = deal(labels[images], clients, name)
        except ValueError as error:
            raise ValueError(
                f"{setting}: the {len(images)} images of the {clients} {name} clients can't be "
                f"dealt to them. {error}"
            ) from error
        sides.append((images[side.order], side.counts))
    orders, counts = zip(*sides, strict=True)
    return Partition(np.concatenate(orders), np.concatenate([[0], np.cumsum(np.hstack(counts))]))


def _divide(labels: _Ints, fraction: float, generator: np.random.Generator) -> tuple[_Ints, _Ints]:
    """Return both sides' images; the whole, and each class to one image, in proportion."""
    by_class = generator.permutation(len(labels))
    by_class = by_class[np.argsort(labels[by_class], kind="stable")]  # shuffled within its class
    # Image i is rich where the rounded share of the first i + 1 images steps up: the steps spread
    # evenly over the sorted images, so each run of them gets its share.
    shares = np.round(np.arange(len(labels) + 1) * fraction).astype(np.int64)
    is_rich = np.diff(shares) > 0
    return np.sort(by_class[is_rich]), np.sort(by_class[~is_rich])


def check_rich_share(partition: Partition, *, num_rich: int, rich_data_fraction: float) -> None:
    """Compare a partition that was given with what `heterogeneity` says of it.

    Args:
        partition: of all clients, the rich first.
        num_rich: rich clients; with 0 there is nothing to compare.
        rich_data_fraction: part of the images that the rich should hold together.

    Raises:
        ValueError: the rich hold another part, by more than a hundredth of all images.
    """
    if num_rich == 0:
        return
    share = float(partition.counts[:num_rich].sum() / partition.counts.sum())
    if abs(share - rich_data_fraction) > _TOLERANCE:
        raise ValueError(
            f"heterogeneity.rich_data_fraction={rich_data_fraction}: in the partition that was "
            f"given the first {num_rich} clients hold {share:.3f} of the images; set it to that, "
            "or use heterogeneity=none or another partition"
        )
