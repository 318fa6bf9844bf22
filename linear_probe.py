"""Evaluate a frozen encoder: `python linear_probe.py checkpoint=<run folder>`."""

from pathlib import Path
from typing import TYPE_CHECKING

import hydra

from mocosfl.config import ProbeConfig, check_writable
from mocosfl.manners import setup_logging, user_errors

if TYPE_CHECKING:
    from mocosfl.checkpoint import Encoder
    from mocosfl.run_folder import RunFolder


@hydra.main(version_base="1.3", config_path="conf", config_name="linear_probe")
def main(config: ProbeConfig) -> None:
    """Probe a checkpoint, or with `checkpoint=none run=<run folder>` what that run started from."""
    setup_logging()
    with user_errors():
        # Imported here, so that --help and typing errors do not wait for torch.
        from mocosfl.evaluation.report import (
            dataset_of,
            probe_encoder,
            summary,
            table,
            write_report,
        )
        from mocosfl.loggers import log_to_wandb

        encoder, folder, run = _choose(config)
        check_writable(folder)  # before minutes of work
        dataset = dataset_of(encoder, config.data_dir)
        print(f"encoder: {encoder.source}, {encoder.step:,} training steps", flush=True)
        report = probe_encoder(encoder, dataset, config)
        write_report(encoder, report, dataset.classes, folder)
        if config.wandb and run is not None and encoder.step:
            log_to_wandb(run, encoder.config, summary(report))
        print(table(report))
        print(f"features {report.feature_seconds:.1f} s, all probes {report.probe_seconds:.1f} s")
        print(f"no weight of the encoder changed (SHA-256 {report.fingerprint[:16]}...)")
        print(f"results: {folder}/results.json, per_class.png, metrics.csv")


def _choose(config: ProbeConfig) -> "tuple[Encoder, Path, RunFolder | None]":
    """Return the encoder, the folder for its results and the run that it belongs to."""
    from mocosfl.checkpoint import find_checkpoint, fresh_encoder, load_encoder
    from mocosfl.run_folder import RunFolder

    if config.checkpoint == "none":
        if config.run is None:
            raise ValueError(
                "checkpoint=none: name the run whose untrained encoder to probe, run=<run folder>"
            )
        run = RunFolder(Path(config.run))
        encoder = fresh_encoder(run.load_config())
        default = run.path / "probe_untrained"
    else:
        path = Path(config.checkpoint)
        encoder = load_encoder(find_checkpoint(path, config.which))
        folder = path if path.is_dir() else path.parent.parent
        run = RunFolder(folder)
        default = folder / "probe"
    output = Path(config.output_dir) if config.output_dir else default
    return encoder, output, run if run.config.is_file() else None


if __name__ == "__main__":
    main()
