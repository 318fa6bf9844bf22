"""Evaluate a frozen encoder: `python linear_probe.py checkpoint=<run folder>`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mocosfl.config.hydra_setup import hydra_command
from mocosfl.config.probe import ProbeConfig
from mocosfl.system.errors import user_errors
from mocosfl.system.files import check_writable
from mocosfl.system.logs import setup_logging

if TYPE_CHECKING:
    from mocosfl.runs.checkpoint import Encoder
    from mocosfl.runs.folder import RunFolder


@hydra_command("linear_probe")
def main(config: ProbeConfig) -> None:
    """Probe a checkpoint, or with `checkpoint=none run=<run folder>` what that run started from."""
    setup_logging()
    with user_errors():
        # Imported here, so that --help and typing errors do not wait for torch.
        from mocosfl.evaluation.probing import table
        from mocosfl.evaluation.run_probes import log_probes, probe_into
        from mocosfl.rules.probe import validate_probe

        if OmegaConf.is_missing(config, "checkpoint"):
            raise ValueError(
                "checkpoint=???: name what to probe, checkpoint=<run folder>, a .ckpt file or none"
            )
        validate_probe(config)
        encoder, folder, run = _choose(config)
        check_writable(folder)  # before anything is said of the encoder
        print(f"encoder: {encoder.source}, {encoder.step:,} training steps", flush=True)
        report = probe_into(folder, encoder, config)
        print(table(report))
        print(
            f"features {report.feature_seconds:.1f} s, all probes {report.probe_seconds:.1f} s, "
            f"embedding map {report.map_seconds:.1f} s"
        )
        print(f"no weight of the encoder changed (SHA-256 {report.fingerprint[:16]}...)")
        drawn = "" if report.embedding_map is None else ", embedding_map.png, embedding_map.csv"
        print(f"results: {folder}/results.json, per_class.png, metrics.csv{drawn}")
        if run is not None:
            print(f"next: python -m mocosfl.report {shlex.quote(str(run.path))}")
        if config.wandb and run is not None and encoder.step:
            name = "probe_best" if encoder.source == str(run.best) else "probe"
            log_probes(run, encoder.config, report, folder, name=name)


def _choose(config: ProbeConfig) -> "tuple[Encoder, Path, RunFolder | None]":
    """Return the encoder, the folder for its results and the run that it belongs to."""
    from mocosfl.runs.checkpoint import find_checkpoint, read_encoder
    from mocosfl.runs.folder import RunFolder
    from mocosfl.training.initial_weights import fresh_encoder

    if config.checkpoint == "none":
        if config.run is None:
            raise ValueError(
                "checkpoint=none: name the run whose untrained encoder to probe, run=<run folder>"
            )
        run = RunFolder(Path(config.run))
        encoder = fresh_encoder(run.load_config())
        return encoder, Path(config.output_dir or run.path / "probe_untrained"), run
    path = Path(config.checkpoint)
    file = find_checkpoint(path, config.which)
    run = RunFolder(path if path.is_dir() else path.parent.parent)
    if run.config.is_file():
        folder = run.path / ("probe_best" if file == run.best else run.probe.name)
        return read_encoder(file), Path(config.output_dir or folder), run
    if config.output_dir is None:
        raise ValueError(f"checkpoint={path}: is in no run folder; say where to write, output_dir=")
    return read_encoder(file), Path(config.output_dir), None


if __name__ == "__main__":
    main()
