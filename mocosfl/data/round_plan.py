"""The plan of a round: who takes part, and which images each client draws at each step.

Everything here is a pure function of (seed, round), never of earlier rounds, so that a run resumed
in the middle of a round, or spread over processes, sees the same images.

Source: Li et al., MocoSFL, ICLR 2023, and the published code's rule for synchronisations.

Legend: N clients, P clients in the pool, b images a client and step, S steps a round.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mocosfl.data.partition import Partition
from mocosfl.system.randomness import numpy_generator

_Ints = npt.NDArray[np.int64]


class GroupPlan(NamedTuple):
    """The clients of a pool with one batch size."""

    places: _Ints  # (p,) places in the pool, consecutive
    images: _Ints  # indices into the training images, (S, p, b)


class RoundPlan(NamedTuple):
    """One round.

    Attributes:
        round: the round's number, from 0.
        pool: clients that take part, (P,); the larger their batch the earlier, else at random.
        groups: the pool by batch size, in the order of the pool.
        present: whether a client is there at a step, (S, P); at least one is.
        sync_due: whether a synchronisation follows the step, (S,).
    """

    round: int
    pool: _Ints
    groups: tuple[GroupPlan, ...]
    present: npt.NDArray[np.bool_]
    sync_due: npt.NDArray[np.bool_]


def plan_round(
    partition: Partition,
    round_index: int,
    *,
    seed: int,
    pool_size: int,
    batch_sizes: _Ints | int,
    syncs_per_round: int,
    num_steps: int,
    dropout_probability: float = 0.0,
) -> RoundPlan:
    """Plan one round.

    Args:
        partition: the images of each client.
        round_index: the round's number, from 0.
        seed: the run's seed.
        pool_size: P, in [1, N].
        batch_sizes: b of each client, (N,), or one for all; at least 1.
        syncs_per_round: F, at least 1.
        num_steps: S, at least 1.
        dropout_probability: of a client missing a step, [0, 1).
    """
    batch_sizes = np.broadcast_to(np.asarray(batch_sizes), (partition.num_clients,))
    pool = draw_pool(partition.num_clients, pool_size, seed=seed, round_index=round_index)
    pool = pool[np.argsort(-batch_sizes[pool], kind="stable")]
    groups = []
    for batch_size in np.unique(batch_sizes[pool])[::-1].tolist():
        places = np.flatnonzero(batch_sizes[pool] == batch_size)
        orders = client_orders(
            partition,
            pool[places],
            seed=seed,
            round_index=round_index,
            num_images=num_steps * batch_size,
        )
        images = orders.reshape(len(places), num_steps, batch_size).swapaxes(0, 1)
        groups.append(GroupPlan(places, images))
    present = draw_present(
        num_steps, pool_size, dropout_probability, seed=seed, round_index=round_index
    )
    due = sync_steps(num_steps, syncs_per_round)
    return RoundPlan(round_index, pool, tuple(groups), present, due)


def steps_per_round(counts: _Ints, batch_sizes: _Ints | int, *, local_epochs: int = 1) -> int:
    """Return S: passes over a client's data, over the mean client's where they differ.

    Args:
        counts: images of each client, (N,).
        batch_sizes: b of each client, (N,), or one for all; at least 1. A client with fewer
            images than its b draws them repeatedly.
        local_epochs: passes, at least 1.

    Returns:
        Passes times floor(images of all / batches of all), at least 1 a pass.
    """
    batch_sizes = np.broadcast_to(np.asarray(batch_sizes), counts.shape)
    assert batch_sizes.min() >= 1  # a rule of `validate`
    return local_epochs * max(1, int(counts.sum()) // int(batch_sizes.sum()))


def draw_present(
    num_steps: int, pool_size: int, dropout_probability: float, *, seed: int, round_index: int
) -> npt.NDArray[np.bool_]:
    """Draw who is there at each step of a round, (num_steps, pool_size).

    Each client misses each step on its own with the given probability, [0, 1). A step at which
    all would miss waits for one of them, so that it has rows.
    """
    if dropout_probability == 0:
        return np.ones((num_steps, pool_size), dtype=bool)
    draws = numpy_generator(seed, "dropout", round_index).random((num_steps, pool_size))
    present = draws >= dropout_probability
    present[np.arange(num_steps), draws.argmax(axis=1)] = True
    return present


def sync_steps(num_steps: int, syncs_per_round: int) -> npt.NDArray[np.bool_]:
    """Return after which steps of a round the pool is synchronised, (num_steps,).

    Due after each step s with s % (S // F) == S // F - 1, and after the last. Where F does not
    divide S that is more than F times; where F exceeds S it is after every step.

    Args:
        num_steps: S, at least 1.
        syncs_per_round: F, at least 1.
    """
    assert syncs_per_round >= 1  # a rule of `validate`
    period = max(1, num_steps // syncs_per_round)
    due: npt.NDArray[np.bool_] = np.arange(num_steps) % period == period - 1
    due[-1] = True
    return due


def draw_pool(num_clients: int, pool_size: int, *, seed: int, round_index: int) -> _Ints:
    """Draw the clients of a round without replacement.

    Args:
        num_clients: N.
        pool_size: P, in [1, N].
        seed: the run's seed.
        round_index: the round's number.

    Returns:
        (P,), in random order; if everyone takes part, 0, 1, ..., N - 1 in this order.
    """
    assert 1 <= pool_size <= num_clients  # a rule of `validate`
    if pool_size == num_clients:
        return np.arange(num_clients)
    generator = numpy_generator(seed, "pool", round_index)
    return generator.choice(num_clients, pool_size, replace=False)


def client_orders(
    partition: Partition, pool: _Ints, *, seed: int, round_index: int, num_images: int
) -> _Ints:
    """Return the images that each client draws in a round, one after the other.

    A client cycles over its own images, reshuffled at every pass. Its order does not depend on
    who else is in the pool.

    Args:
        partition: the images of each client.
        pool: clients of the round, (P,).
        seed: the run's seed.
        round_index: the round's number.
        num_images: images a client and round, S * b.

    Returns:
        Indices into the training images, (P, num_images).
    """
    orders = np.empty((len(pool), num_images), dtype=np.int64)
    # A loop over clients, though a short one (about 20 us each): with one generator for all, a
    # client's draw would depend on the pool.
    for row, client in enumerate(pool.tolist()):
        images = partition.client(client)
        order = client_order(
            len(images), client, seed=seed, round_index=round_index, num_images=num_images
        )
        orders[row] = images[order]
    return orders


def step_of_client(
    num_own: int,
    client: int,
    *,
    seed: int,
    round_index: int,
    number: int,
    steps_per_round: int,
    batch_size: int,
) -> _Ints:
    """Return the places among its own images that one client draws in a step, (b,).

    For a client that asks step by step: the order of its round is kept for the next one.

    Args:
        num_own: images that it holds, at least 1.
        client: its id.
        seed: the run's seed.
        round_index: the round's number.
        number: of the step in its round, from 0.
        steps_per_round: S.
        batch_size: b of the client.
    """
    order = _kept_order(
        num_own,
        client,
        seed=seed,
        round_index=round_index,
        num_images=steps_per_round * batch_size,
    )
    return order[number * batch_size :][:batch_size]


def client_order(
    num_own: int, client: int, *, seed: int, round_index: int, num_images: int
) -> _Ints:
    """Return the places among its own images that one client draws in a round, (num_images,).

    Args:
        num_own: images that it holds, at least 1.
        client: its id.
        seed: the run's seed.
        round_index: the round's number.
        num_images: S * b.
    """
    num_passes = -(-num_images // num_own)
    generator = numpy_generator(seed, "order", round_index, client)
    shuffles = generator.random((num_passes, num_own)).argsort(axis=1)
    return shuffles.ravel()[:num_images]


_kept_order = lru_cache(maxsize=1)(client_order)
