"""Rules for `optimizer`: bounds and the courses of the learning rates."""

from collections.abc import Iterator

from mocosfl.config.choices import ClientSchedule, Schedule
from mocosfl.config.schema import Config
from mocosfl.rules.problems import not_from_0_to_1, too_small


def optimizer_rules(config: Config) -> Iterator[str]:
    """Yield a line for each number outside its bounds, and for two courses that disagree."""
    o = config.optimizer
    yield from too_small(
        [
            ("optimizer.server_lr", o.server_lr, 0),
            ("optimizer.client_lr", o.client_lr, 0),
            ("optimizer.weight_decay", o.weight_decay, 0),
            ("optimizer.step_decay_server", o.step_decay_server, 0),
            ("optimizer.step_decay_client", o.step_decay_client, 0),
        ]
    )
    yield from not_from_0_to_1([("optimizer.momentum", o.momentum)])
    if o.client_schedule is ClientSchedule.published and o.schedule is not Schedule.cosine:
        yield (
            f"optimizer.client_schedule=published: is a cosine, and optimizer.schedule="
            f"{o.schedule.name}; set optimizer.schedule=cosine or optimizer.client_schedule=rounds"
        )
