"""What each process of a run reads before it builds anything."""

from typing import Any, NamedTuple

from mocosfl.config.schema import Config
from mocosfl.data.expert_data import open_data
from mocosfl.data.federated_data import FederatedData
from mocosfl.overhead.plan import Plan, make_plan
from mocosfl.runs.folder import RunFolder
from mocosfl.training.initial_weights import load_expert


class RunInputs(NamedTuple):
    """The data of a run, what it will do, and what it starts from."""

    data: FederatedData
    plan: Plan
    expert: dict[str, Any] | None  # a checkpoint; None where there is none to start from


def read_inputs(config: Config, folder: RunFolder, *, resumes: bool) -> RunInputs:
    """Read a run's data and its expert.

    Args:
        config: of the run, valid.
        folder: of the run.
        resumes: whether a checkpoint follows: it holds the expert's weights, and the folder holds
            who has which images.

    Raises:
        ValueError, FileNotFoundError: the data or the expert are not there, or don't fit.
    """
    data = open_data(config, partition_file=folder.partition if resumes else None)
    expert = None if resumes else load_expert(config)
    return RunInputs(data, make_plan(config, data.partition.counts), expert)
