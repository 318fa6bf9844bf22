"""Where the curves of a run go: its CSV file and Weights & Biases."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import wandb
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import Logger

from mocosfl.build import plain
from mocosfl.config import Config
from mocosfl.metrics_log import MetricsLog
from mocosfl.run_folder import RunFolder, write_atomically


@contextmanager
def open_loggers(config: Config, folder: RunFolder) -> Iterator[list[Logger]]:
    """Open the run's loggers and close them, whatever happens in between."""
    chosen: list[Logger] = [MetricsLog(folder.metrics)] if config.logger.csv else []
    if not config.logger.wandb:
        yield chosen
        return
    try:
        yield [*chosen, _wandb_logger(config, folder)]
    finally:
        wandb.finish()  # else the jobs of a sweep would share one W&B run


def _wandb_logger(config: Config, folder: RunFolder) -> WandbLogger:
    if not folder.wandb_id.is_file():
        write_atomically(folder.wandb_id, uuid.uuid4().hex[:8])
    settings = config.logger
    logger = WandbLogger(
        name=folder.path.name,
        save_dir=folder.path,
        id=folder.wandb_id.read_text().strip(),
        project=settings.wandb_project,
        entity=settings.wandb_entity,
        group=settings.wandb_group,
        notes=config.notes or None,
        mode=settings.wandb_mode,
        resume="allow" if settings.wandb_mode == "online" else None,
        settings={"silent": True, "console": "off"},
    )
    # Lightning 2.6 passes it on even if unset, and W&B then warns of what no user can change.
    logger._wandb_init.pop("anonymous", None)
    try:
        logger.log_hyperparams(plain(config))  # the first use, which starts the W&B run
    except wandb.errors.Error as error:
        raise ValueError(
            f"logger.wandb_mode={settings.wandb_mode}: W&B refuses ({error}); run `wandb login` "
            "or set WANDB_API_KEY, or choose logger=csv"
        ) from error
    return logger


def log_to_wandb(
    folder: RunFolder,
    config: Config,
    values: dict[str, float],
    pictures: Mapping[str, Path] | None = None,
) -> None:
    """Add values to the summary of a run's W&B run; nothing where the run has none.

    Args:
        folder: of the run.
        config: of the run.
        values: by logged name.
        pictures: logged name -> PNG file, shown with the run; None for none.
    """
    if not folder.wandb_id.is_file():
        return
    with open_loggers(config, folder) as loggers:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.summary.update(values)
                for name, path in (pictures or {}).items():
                    logger.experiment.log({name: wandb.Image(str(path))})
