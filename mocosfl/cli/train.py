"""What train.py, `mocosfl.expert` and `mocosfl.edge.server` do with a configuration."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from mocosfl.cli.sweep import Outcome, Result, run_job
from mocosfl.config.derived import is_expert, is_networked
from mocosfl.config.hydra_setup import in_sweep
from mocosfl.config.identity import FREE_ON_RESUME, copy_keys, move_data
from mocosfl.config.schema import Config
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.resuming import resume_command
from mocosfl.system.errors import user_errors
from mocosfl.system.logs import setup_logging
from mocosfl.training.deployment import SIMULATION, Deployment


def run(config: Config, deployment: Deployment = SIMULATION) -> Result:
    """Train, or go on with `resume=<run folder>`; in a sweep, what the job's folder calls for.

    Args:
        config: as composed from the command line.
        deployment: where the clients are; a sweep's are simulated.
    """
    setup_logging()
    if in_sweep():
        return run_job(config)
    with user_errors():
        # Imported here, so that --help and typing errors do not wait for torch.
        from mocosfl.rules.privacy import check_overrides
        from mocosfl.training.run import train

        overrides = HydraConfig.get().overrides.task
        if config.resume is None:
            check_overrides(config.taressfl.mode, overrides)
            train(config, RunFolder(Path(config.run_dir)), resume=False, deployment=deployment)
            return Result(Outcome.finished)
        free = ("resume=", "data_dir=", *(f"{key}=" for key in FREE_ON_RESUME))
        others = [o for o in overrides if not o.startswith(free)]
        if others:
            raise ValueError(
                f"resume={config.resume}: a resumed run keeps its configuration, so that it ends "
                f"as if never stopped; leave out {' '.join(others)}, or start a fresh run"
            )
        folder = RunFolder(Path(config.resume))
        run_config = folder.load_config()
        if is_networked(run_config) != is_networked(config):
            command = resume_command(
                edge=is_networked(run_config), expert=is_expert(run_config), folder=config.resume
            )
            where = "other machines" if is_networked(run_config) else "simulated"
            raise ValueError(
                f"resume={config.resume}: its clients are {where}, unlike this program's; resume "
                f"it with {command}"
            )
        if any(override.startswith("data_dir=") for override in overrides):
            move_data(run_config, config.data_dir)
        given = {override.partition("=")[0] for override in overrides}
        copy_keys(config, run_config, given.intersection(FREE_ON_RESUME))
        train(run_config, folder, resume=True, deployment=deployment)
    return Result(Outcome.finished)
