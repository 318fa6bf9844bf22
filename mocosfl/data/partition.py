"""Partitions: which client holds which images, as pure functions of a seed.

    iid             random equal parts
    shards          sorted by label, cut into equal shards, `classes_per_client` dealt to each one
    dirichlet       each class spread over the clients in proportions drawn from Dirichlet(alpha)
    quantity_skew   random images; the clients' sizes are drawn from Dirichlet(alpha)

Every image goes to exactly one client, and every client holds at least one. Parts called equal
differ by at most one image where the division leaves a remainder.

Source: Li et al., MocoSFL, ICLR 2023 (shards); Hsu et al., arXiv 1909.06335 (dirichlet); Li et
al., "Federated learning on non-IID data silos", ICDE 2022 (quantity_skew).

Legend: N clients, M training images.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mocosfl.system.files import write_atomically
from mocosfl.system.randomness import numpy_generator

_Ints = npt.NDArray[np.int64]

KINDS = ("iid", "shards", "dirichlet", "quantity_skew")
# After a hundred failures a draw succeeds with less than 3 % (rule of three): change the setting.
_MAX_DRAWS = 100


@dataclass(frozen=True, eq=False)
class Partition:
    """Index lists of all clients, end to end.

    Attributes:
        order: image indices, client after client, (M,).
        offsets: client i holds `order[offsets[i]:offsets[i + 1]]`, (N + 1,).
    """

    order: _Ints
    offsets: _Ints

    def __post_init__(self) -> None:
        is_whole = (
            len(self.offsets) > 1 and self.offsets[0] == 0 and self.offsets[-1] == len(self.order)
        )
        if not is_whole or self.counts.min() < 1:
            raise ValueError("partition: offsets must rise from 0 to the number of images")

    @property
    def num_clients(self) -> int:
        """Number of clients N."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> _Ints:
        """Images of each client, (N,), at least 1."""
        return np.diff(self.offsets)

    def client(self, index: int) -> _Ints:
        """Return the image indices of one client, a view of `order`."""
        return self.order[self.offsets[index] : self.offsets[index + 1]]

    def class_counts(self, labels: _Ints, num_classes: int) -> _Ints:
        """Return how many images of each class each client holds, (N, num_classes).

        Args:
            labels: labels of all training images, (M,).
            num_classes: number of classes, above every label.
        """
        clients = np.repeat(np.arange(self.num_clients), self.counts)
        cells = clients * num_classes + labels[self.order]
        counts = np.bincount(cells, minlength=self.num_clients * num_classes)
        return counts.reshape(self.num_clients, num_classes)

    def save(self, path: Path) -> None:
        """Write `partition.json`, whole or not at all."""
        content = {"offsets": self.offsets.tolist(), "order": self.order.tolist()}
        write_atomically(path, json.dumps(content, separators=(",", ":")))

    @classmethod
    def load(cls, path: Path) -> "Partition":
        """Read `partition.json`.

        Raises:
            ValueError: the file is no partition.
        """
        try:
            content = json.loads(path.read_text())
            offsets, order = (_integers(content[key]) for key in ("offsets", "order"))
            if len(np.unique(order)) != len(order):
                raise ValueError("an image is held twice")
            return cls(order, offsets)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: no partition ({error}); start a new run") from error


def _integers(values: object) -> _Ints:
    array = np.array(values)
    # Without this a number such as 1.5 would be rounded, and one of 20 digits raise OverflowError.
    if array.dtype != np.int64 or array.ndim != 1:
        raise ValueError("a list that is not of integers")
    return array


def make_partition(
    kind: str,
    labels: _Ints,
    *,
    num_clients: int,
    num_classes: int,
    seed: int,
    classes_per_client: int,
    alpha: float,
    min_images: int,
    stream: tuple[str, ...] = (),
) -> Partition:
    """Spread the training images over the clients.

    Args:
        kind: one of `KINDS`.
        labels: labels of all training images, (M,).
        num_clients: N, in [1, M].
        num_classes: number of classes.
        seed: at least 0; the partition is a pure function of the arguments.
        classes_per_client: shards a client, in [1, num_classes]; read by "shards" only. Shards
            that span two classes, and two of one class, make it a rough number.
        alpha: concentration, above 0; small is skewed; read by "dirichlet" and "quantity_skew".
        min_images: least images of a client, at least 1; read by the same two.
        stream: where several partitions are made with one seed, the name of this one's draws.

    Raises:
        ValueError: there are too few images, or no draw gives every client `min_images`.
    """
    # Rules of `validate`; what the number of images decides is refused here.
    assert kind in KINDS and num_clients >= 1
    assert 1 <= classes_per_client <= num_classes or kind != "shards"
    assert 0 < alpha < float("inf") and min_images >= 1
    check_num_clients(num_clients, len(labels))
    generator = numpy_generator(seed, "partition", kind, *stream)
    if kind == "iid":
        order = generator.permutation(len(labels)).astype(np.int64)
        return Partition(order, equal_offsets(len(labels), num_clients))
    if kind == "shards":
        return _deal_shards(labels, num_clients, classes_per_client, generator)
    _check_min_images(min_images, num_clients, len(labels))
    if kind == "dirichlet":
        return _draw_dirichlet(labels, num_clients, alpha, min_images, generator)
    return _draw_sizes(len(labels), num_clients, alpha, min_images, generator)


def check_num_clients(num_clients: int, num_images: int) -> None:
    """Refuse more clients than there are training images.

    Raises:
        ValueError: some client would have none.
    """
    if num_clients > num_images:
        raise ValueError(
            f"clients.num_clients={num_clients}: only {num_images} training images; lower "
            "clients.num_clients"
        )


def equal_offsets(num_images: int, num_parts: int) -> _Ints:
    """Return where equal parts begin, and the end of the last, (num_parts + 1,)."""
    # The sizes of np.array_split: the first parts take one more.
    parts = np.arange(num_parts + 1)
    return num_images // num_parts * parts + np.minimum(parts, num_images % num_parts)


def _deal_shards(
    labels: _Ints, num_clients: int, classes_per_client: int, generator: np.random.Generator
) -> Partition:
    num_shards = num_clients * classes_per_client
    if num_shards > len(labels):
        raise ValueError(
            f"partition.classes_per_client={classes_per_client}: {num_clients} clients need "
            f"{num_shards} shards, but there are only {len(labels)} training images; lower "
            "partition.classes_per_client or clients.num_clients"
        )
    # Shards differ by an image where the division leaves a remainder: every image is dealt.
    starts = equal_offsets(len(labels), num_shards)
    dealt = generator.permutation(num_shards)  # client-major
    sizes = np.diff(starts)[dealt]
    ends = np.cumsum(sizes)
    # Place of each image in the sorted order: the start of its shard plus its place in the shard.
    places = np.repeat(starts[dealt] - (ends - sizes), sizes) + np.arange(len(labels))
    order = np.argsort(labels, kind="stable")[places]
    return Partition(
        order, np.concatenate([[0], ends[classes_per_client - 1 :: classes_per_client]])
    )


def _check_min_images(min_images: int, num_clients: int, num_images: int) -> None:
    if min_images * num_clients > num_images:
        raise ValueError(
            f"partition.min_images={min_images}: {num_clients} clients need "
            f"{min_images * num_clients} images, but there are only {num_images}; lower "
            "partition.min_images or clients.num_clients"
        )


def _draw_dirichlet(
    labels: _Ints,
    num_clients: int,
    alpha: float,
    min_images: int,
    generator: np.random.Generator,
) -> Partition:
    class_sizes = np.unique(labels, return_counts=True)[1]  # (classes,)
    for _ in range(_MAX_DRAWS):
        shares = generator.dirichlet(np.full(num_clients, alpha), size=len(class_sizes))
        cuts = np.round(np.cumsum(shares, axis=1) * class_sizes[:, None]).astype(np.int64)
        cuts[:, -1] = class_sizes  # the sum of the shares is 1 up to rounding
        counts = np.diff(cuts, axis=1, prepend=0)  # (classes, N)
        if counts.sum(axis=0).min() >= min_images:
            break
    else:
        raise ValueError(
            f"partition.alpha={alpha}: in {_MAX_DRAWS} draws some client had fewer than "
            f"partition.min_images={min_images} of the {len(labels)} images; raise "
            f"partition.alpha, or lower partition.min_images or clients.num_clients={num_clients}"
        )
    by_class = generator.permutation(len(labels))
    by_class = by_class[np.argsort(labels[by_class], kind="stable")]  # shuffled within its class
    owners = np.repeat(np.tile(np.arange(num_clients), len(class_sizes)), counts.ravel())
    order = by_class[np.argsort(owners, kind="stable")]
    return Partition(order, np.concatenate([[0], np.cumsum(counts.sum(axis=0))]))


def _draw_sizes(
    num_images: int,
    num_clients: int,
    alpha: float,
    min_images: int,
    generator: np.random.Generator,
) -> Partition:
    # Each client gets its least images first and a drawn share of the others. Drawing until nobody
    # has too few, as above, would never end: here no second class makes up for a small share.
    spare = num_images - num_clients * min_images
    shares = generator.dirichlet(np.full(num_clients, alpha))
    cuts = np.round(np.cumsum(shares) * spare).astype(np.int64)
    cuts[-1] = spare  # the sum of the shares is 1 up to rounding
    offsets = np.concatenate([[0], cuts + min_images * np.arange(1, num_clients + 1)])
    return Partition(generator.permutation(num_images).astype(np.int64), offsets)
