"""A further process of a run: it trains its share of the pool beside the first one."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from mocosfl.config.identity import plain, recorded_config
from mocosfl.config.schema import Config
from mocosfl.federation.ranks import Ranks
from mocosfl.runs.folder import RunFolder
from mocosfl.system.logs import setup_logging
from mocosfl.training.build import build_run
from mocosfl.training.cpu_settings import cpu_settings
from mocosfl.training.data_module import DataModule
from mocosfl.training.inputs import read_inputs
from mocosfl.training.processes.strategy import OwnProcesses
from mocosfl.training.processes.workers import RankJob, further_processes
from mocosfl.training.trainer import make_trainer


def further_ranks(
    config: Config, folder: RunFolder, checkpoint: Path | None, processes: OwnProcesses | None
) -> AbstractContextManager[None]:
    """Return a context in which the further processes of a run train; see `further_processes`.

    Args:
        config: of the run.
        folder: of the run.
        checkpoint: to go on from; None for the start.
        processes: this process, the first of several; None where it is alone.
    """
    if processes is None:
        return nullcontext()
    jobs = [
        RankJob(plain(config), folder.path, checkpoint, rank, processes.port)
        for rank in range(1, processes.ranks.number)
    ]
    return further_processes(train_rank, jobs)


def train_rank(job: RankJob, ready: Callable[[], None]) -> None:
    """Train as the first process does, and write nothing.

    Args:
        job: the process's part.
        ready: called when all is built and the processes can meet.
    """
    setup_logging()
    config = recorded_config(job.config, "trainer.devices", "start the run again")
    folder = RunFolder(job.folder)
    with cpu_settings(config):
        data, plan, expert = read_inputs(config, folder, resumes=job.checkpoint is not None)
        ranks = Ranks(job.rank, config.trainer.devices)
        module = build_run(config, folder, plan, data.partition.counts, expert=expert, ranks=ranks)
        trainer = make_trainer(config, folder, plan, [], OwnProcesses(ranks, job.port))
        ready()
        trainer.fit(
            module, datamodule=DataModule(data), ckpt_path=job.checkpoint, weights_only=True
        )
