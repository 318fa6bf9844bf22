"""Lightning's trainer as a run needs it."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from pytorch_lightning.profilers import Profiler as LightningProfiler

from mocosfl.config.choices import Profiler
from mocosfl.config.derived import is_expert
from mocosfl.config.schema import Config
from mocosfl.overhead.plan import Plan, steps_to_do
from mocosfl.runs.folder import RunFolder
from mocosfl.training.callbacks.alarm import Alarm
from mocosfl.training.callbacks.checkpoints import AtomicCheckpoints, LastCheckpoint
from mocosfl.training.callbacks.interruption import Interruption
from mocosfl.training.callbacks.knn_monitor import KnnMonitor
from mocosfl.training.callbacks.reconstructions import Reconstructions
from mocosfl.training.callbacks.step_log import Bar, StepLog
from mocosfl.training.deployment import SIMULATION, Deployment
from mocosfl.training.processes.strategy import OwnProcesses, PlainTermination, PoolStrategy

PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp64": "64-true"}


def make_trainer(
    config: Config,
    folder: RunFolder,
    plan: Plan,
    run_loggers: list[Logger],
    processes: OwnProcesses | None = None,
    *,
    deployment: Deployment = SIMULATION,
) -> pl.Trainer:
    """Return Lightning's trainer with our callbacks.

    Args:
        config: of the run.
        folder: where it writes.
        plan: of the run.
        run_loggers: where the curves go; [] for further processes.
        processes: this process among several; None where it is alone.
        deployment: where the clients are.
    """
    settings, first = config.trainer, processes is None or processes.ranks.rank == 0
    max_steps = steps_to_do(config, plan)
    return pl.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=PRECISION[settings.precision],  # type: ignore[arg-type]
        max_steps=max_steps,
        max_epochs=1,
        limit_train_batches=max_steps,  # the length of the progress bar
        log_every_n_steps=settings.log_every_steps,
        logger=run_loggers,
        callbacks=[
            *_callbacks(config, folder, deployment, first=first),
            *([] if processes is None else [PlainTermination()]),
        ],
        strategy="auto" if processes is None else PoolStrategy(),
        plugins=[AtomicCheckpoints(), *([] if processes is None else [processes])],
        enable_checkpointing=False,  # LastCheckpoint and KnnMonitor write them
        enable_progress_bar=settings.progress_bar and first,
        profiler=_profiler(settings.profiler, folder) if first else None,
        enable_model_summary=False,  # the plan says it better
        default_root_dir=folder.path,
        use_distributed_sampler=False,
    )


def _profiler(kind: Profiler, folder: RunFolder) -> LightningProfiler | None:
    """Return what watches the run; its report is `profile/fit-<kind>.txt`."""
    if kind is Profiler.none:
        return None
    profilers: dict[Profiler, type[LightningProfiler]] = {
        Profiler.simple: SimpleProfiler,
        Profiler.advanced: AdvancedProfiler,
        Profiler.pytorch: PyTorchProfiler,
    }
    return profilers[kind](dirpath=folder.profile, filename=kind.name)


def _callbacks(
    config: Config, folder: RunFolder, deployment: Deployment, *, first: bool
) -> list[Callback]:
    """Return the callbacks; the alarm comes before what would save a broken state.

    Further processes have those that decide or save, which all must do alike.
    """
    settings, every = config.callbacks, config.trainer.log_every_steps
    alarm = Alarm(
        every_steps=every,
        window_steps=settings.collapse_window_steps,
        loss_margin=settings.collapse_loss_margin,
        min_std=settings.collapse_min_std,
        # Where it keeps the last checkpoint from being written, no run may end without a word.
        strict_end=is_expert(config) or config.taressfl.max_collapses > 0,
    )
    guarding = alarm if config.taressfl.max_collapses else None
    deciding: list[Callback] = [
        alarm,
        KnnMonitor(config, folder.best, unless_suspicious=guarding),
        LastCheckpoint(
            folder.last,
            every_steps=settings.checkpoint_every_steps,
            every_minutes=settings.checkpoint_every_minutes,
            ask_every_steps=every,
            unless_suspicious=guarding,
        ),
    ]
    if not first:
        return deciding
    callbacks = [StepLog(every_steps=every), *deciding]
    if settings.pictures:
        callbacks.append(Reconstructions(folder))
    callbacks.append(
        Interruption(
            folder,
            config,
            at_step_end=config.trainer.devices == 1 and deployment.ends_at_step_end,
            unless_suspicious=guarding,
        )
    )
    if config.trainer.progress_bar:
        callbacks.append(Bar(refresh_rate=every))
    return callbacks
