"""Where the curves of a run go: its CSV file and Weights & Biases."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import Logger

from mocosfl.config.schema import Config
from mocosfl.runs.folder import RunFolder
from mocosfl.tracking.metrics_log import MetricsLog
from mocosfl.tracking.wandb_run import WandbTable, best_values, show, wandb_run


@contextmanager
def open_loggers(config: Config, folder: RunFolder) -> Iterator[list[Logger]]:
    """Open the run's loggers and close them, whatever happens in between."""
    metrics = MetricsLog(folder.metrics)
    if not config.logger.wandb:
        yield [metrics]
        return
    with wandb_run(config, folder) as run:
        # Given a run, Lightning defines no curves of its own, which would compete with ours.
        logger = WandbLogger(experiment=run, save_dir=folder.path)
        try:
            yield [metrics, logger]
        finally:
            show(run, folder, best_values(folder))


def log_picture(
    loggers: list[Logger], name: str, path: Path, *, step: int, progress: dict[str, float]
) -> None:
    """Show a picture of a training step with the run, where there is a W&B run.

    Args:
        loggers: of the trainer.
        name: logged name.
        path: PNG file.
        step: that has just ended, counted from 0.
        progress: how far the run is, by logged name.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            values: dict[str, Any] = {name: wandb.Image(str(path)), **progress}
            logger.log_metrics(values, step=step)


def log_to_wandb(
    folder: RunFolder,
    config: Config,
    values: Mapping[str, float],
    pictures: Mapping[str, Path] | None = None,
    tables: Mapping[str, WandbTable] | None = None,
) -> None:
    """Add to a run's W&B run; nothing where the run has none.

    Args:
        folder: of the run.
        config: of the run.
        values: of the summary, by logged name.
        pictures: logged name -> PNG file, shown with the run; None for none.
        tables: logged name -> table; None for none.
    """
    if not (config.logger.wandb and folder.wandb_id.is_file()):
        return
    with wandb_run(config, folder) as run:
        show(run, folder, values, pictures=pictures, tables=tables)
