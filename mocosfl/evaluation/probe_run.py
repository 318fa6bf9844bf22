"""The probes of a run's encoder from start to file: for `linear_probe.py` and the end of a run."""

from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from mocosfl.config.hydra_setup import CONF
from mocosfl.config.probe import ProbeConfig
from mocosfl.config.schema import Config
from mocosfl.evaluation.probe_report import (
    ProbeReport,
    accuracies_by_name,
    dataset_of,
    probe_encoder,
    write_probes,
)
from mocosfl.runs.checkpoint import Encoder, read_encoder
from mocosfl.runs.chosen_checkpoint import choose
from mocosfl.runs.evaluation_folders import ProbeFolder
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.json_records import read_record
from mocosfl.system.files import check_writable
from mocosfl.tracking.loggers import log_to_wandb
from mocosfl.tracking.wandb_run import WandbTable

DEFAULTS = CONF / "linear_probe.yaml"


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
    write_probes(encoder, report, dataset.classes, folder)
    return report


def probe_run(folder: RunFolder, config: Config) -> ProbeReport:
    """Probe a run's last checkpoint into its `probe/`, as `linear_probe.py checkpoint=<run>` does.

    The settings are the defaults of conf/linear_probe.yaml.

    Args:
        folder: of the run.
        config: of the run.
    """
    settings = default_probe_config()
    settings.checkpoint = str(folder.path)
    settings.data_dir = config.data_dir  # the data may have moved since the checkpoint
    settings.accelerator = config.trainer.accelerator
    chosen = choose(settings.checkpoint, "last", name="probe", output_dir=None)
    report = probe_into(chosen.output, read_encoder(chosen.file), settings)
    if settings.wandb:
        log_probes(folder, config, report, chosen.output, name=chosen.name)
    return report


def log_probes(
    run: RunFolder, config: Config, report: ProbeReport, folder: Path, *, name: str
) -> None:
    """Show with a run's W&B run what its probes found, where it has one.

    Args:
        run: its folder.
        config: of the run.
        report: what was found.
        folder: what `probe_into` has written to.
        name: what the logged names begin with; another one for the best checkpoint, which would
            else take the place of the last.
    """
    values = {
        f"{name}/{key.removeprefix('probe/')}": top1
        for key, top1 in accuracies_by_name(report).items()
    }
    files = ProbeFolder(folder)
    pictures = {"per_class_picture": files.per_class, "embedding_map": files.embedding_map}
    shown = {f"{name}/{key}": path for key, path in pictures.items() if path.is_file()}
    log_to_wandb(run, config, values, shown, {f"{name}/per_class": _per_class(folder)})


def _per_class(folder: Path) -> WandbTable:
    """Return the accuracies, fractions: a row a class, a column a probe."""
    probes = read_record(ProbeFolder(folder).results)["probes"]
    found = [probe["per_class"] for probe in probes.values()]
    rows = [[cls, *(top1s[cls] for top1s in found)] for cls in found[0]]
    return WandbTable(["class", *probes], rows)


def default_probe_config() -> ProbeConfig:
    """Return the values of conf/linear_probe.yaml."""
    values = OmegaConf.load(DEFAULTS)
    assert isinstance(values, DictConfig)
    for key in ("defaults", "hydra"):  # Hydra's own part
        values.pop(key)
    return cast(ProbeConfig, OmegaConf.merge(OmegaConf.structured(ProbeConfig), values))
