"""Rules for `callbacks`: checkpoints, monitors, alarms."""

from collections.abc import Iterator

from mocosfl.config.schema import Config
from mocosfl.rules.problems import not_below_1, not_positive, too_small


def callback_rules(config: Config) -> Iterator[str]:
    """Yield a line for each number outside its bounds, and each monitor that cannot work."""
    c = config.callbacks
    yield from too_small(
        [
            ("callbacks.checkpoint_every_steps", c.checkpoint_every_steps, 1),
            ("callbacks.knn_every_rounds", c.knn_every_rounds, 0),
            ("callbacks.knn_num_images", c.knn_num_images, 1),
            ("callbacks.knn_num_neighbors", c.knn_num_neighbors, 1),
            ("callbacks.collapse_window_steps", c.collapse_window_steps, 0),
            ("callbacks.collapse_loss_margin", c.collapse_loss_margin, 0),
            ("callbacks.collapse_min_std", c.collapse_min_std, 0),
        ]
    )
    yield from not_below_1([("callbacks.knn_held_out_fraction", c.knn_held_out_fraction)])
    yield from not_positive(
        [
            ("callbacks.knn_temperature", c.knn_temperature),
            ("callbacks.checkpoint_every_minutes", c.checkpoint_every_minutes),
        ]
    )
    if c.knn_every_rounds and c.knn_num_images <= c.knn_num_neighbors:
        yield (
            f"callbacks.knn_num_neighbors={c.knn_num_neighbors}: must be below "
            f"callbacks.knn_num_images={c.knn_num_images}"
        )
