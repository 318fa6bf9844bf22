"""The probes of a run's encoder from start to file: for `linear_probe.py` and the end of a run."""

from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from mocosfl.checkpoint import Encoder, load_encoder
from mocosfl.config import Config, ProbeConfig, check_writable
from mocosfl.evaluation.report import ProbeReport, dataset_of, probe_encoder, summary, write_report
from mocosfl.loggers import log_to_wandb
from mocosfl.run_folder import RunFolder

DEFAULTS = Path(__file__).parents[2] / "conf" / "linear_probe.yaml"


def probe_into(folder: Path, encoder: Encoder, config: ProbeConfig) -> ProbeReport:
    """Probe an encoder on the test images and write what is found.

    Args:
        folder: for `results.json`, `metrics.csv`, `per_class.png` and `embedding_map.{png,csv}`.
        encoder: what to probe.
        config: of the probes.

    Raises:
        ValueError, FileNotFoundError: the folder can't be written, or the data don't fit.
    """
    check_writable(folder)  # before minutes of work
    dataset = dataset_of(encoder, config.data_dir)
    report = probe_encoder(encoder, dataset, config)
    write_report(encoder, report, dataset.classes, folder)
    return report


def probe_run(folder: RunFolder, config: Config) -> ProbeReport:
    """Probe a run's last checkpoint into its `probe/`, as `linear_probe.py checkpoint=<run>` does.

    The settings are the defaults of conf/linear_probe.yaml; the neighbours are as many as the run's
    monitor asks.

    Args:
        folder: of the run.
        config: of the run.
    """
    settings = default_probe_config()
    settings.checkpoint = str(folder.path)
    settings.data_dir = config.data_dir  # the data may have moved since the checkpoint
    settings.accelerator = config.trainer.accelerator
    settings.knn_num_neighbors = config.callbacks.knn_num_neighbors
    report = probe_into(folder.probe, load_encoder(folder.last), settings)
    if settings.wandb and config.logger.wandb:
        log_to_wandb(folder, config, summary(report))
    return report


def default_probe_config() -> ProbeConfig:
    """Return the values of conf/linear_probe.yaml."""
    values = OmegaConf.load(DEFAULTS)
    assert isinstance(values, DictConfig)
    for key in ("defaults", "hydra"):  # Hydra's own part
        values.pop(key)
    return cast(ProbeConfig, OmegaConf.merge(OmegaConf.structured(ProbeConfig), values))
