"""How many steps a round has."""

import numpy as np
import numpy.typing as npt

from mocosfl.config.derived import batch_sizes, is_expert, part_batch_sizes
from mocosfl.config.schema import Config
from mocosfl.data.round_plan import steps_per_round


def round_steps(config: Config, counts: npt.NDArray[np.int64]) -> int:
    """Return S, the steps of a round.

    Args:
        config: a valid configuration.
        counts: (N,) images of each client; of an expert the images of its parts, see
            `part_batch_sizes`.
    """
    if is_expert(config):
        return max(1, int(counts[-1]) // int(part_batch_sizes(config)[-1]))
    return steps_per_round(counts, batch_sizes(config), local_epochs=config.method.local_epochs)
