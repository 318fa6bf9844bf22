"""Evaluate a frozen encoder: `python linear_probe.py checkpoint=<run folder>`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mocosfl.config.hydra_setup import hydra_command
from mocosfl.config.probe import ProbeConfig
from mocosfl.runs.evaluation_folders import ProbeFolder
from mocosfl.runs.folder import RunFolder
from mocosfl.system.errors import user_errors
from mocosfl.system.files import check_writable
from mocosfl.system.logs import setup_logging

if TYPE_CHECKING:
    from mocosfl.runs.checkpoint import Encoder
    from mocosfl.runs.chosen_checkpoint import Chosen


@hydra_command("linear_probe")
def main(config: ProbeConfig) -> None:
    """Probe a checkpoint, or with `checkpoint=none run=<run folder>` what that run started from."""
    setup_logging()
    with user_errors():
        # Imported here, so that --help and typing errors do not wait for torch.
        from mocosfl.evaluation.probe_report import table
        from mocosfl.evaluation.probe_run import log_probes, probe_into
        from mocosfl.rules.machine import check_gpu
        from mocosfl.rules.probe import validate_probe

        validate_probe(config)
        check_gpu(config.accelerator)
        encoder, chosen = _choose(config)
        run, folder = chosen.run, chosen.output
        check_writable(folder)  # before anything is said of the encoder
        print(f"encoder: {encoder.source}, {encoder.step:,} training steps", flush=True)
        report = probe_into(folder, encoder, config)
        print(table(report))
        print(
            f"features {report.feature_seconds:.1f} s, all probes {report.probe_seconds:.1f} s, "
            f"embedding map {report.map_seconds:.1f} s"
        )
        print(f"no weight of the encoder changed (SHA-256 {report.fingerprint[:16]}...)")
        files = ProbeFolder(folder)
        written = [files.results, files.per_class, files.metrics]
        if report.embedding_map is not None:
            written += [files.embedding_map, files.embedding_map_table]
        print(f"results: {folder}/{', '.join(file.name for file in written)}")
        if run is not None:
            print(f"next: python -m mocosfl.report {shlex.quote(str(run.path))}")
        if config.wandb and run is not None and encoder.step:
            log_probes(run, encoder.config, report, folder, name=chosen.name)


def _choose(config: ProbeConfig) -> "tuple[Encoder, Chosen]":
    """Return the encoder, and where it comes from."""
    from mocosfl.rules.validate import validate
    from mocosfl.runs.checkpoint import read_encoder
    from mocosfl.runs.chosen_checkpoint import choose, choose_untrained
    from mocosfl.training.initial_weights import fresh_encoder

    if config.run is None:  # `validate_probe`: it is named with checkpoint=none, and only then
        chosen = choose(config.checkpoint, config.which, name="probe", output_dir=config.output_dir)
        return read_encoder(chosen.file), chosen
    run = RunFolder(Path(config.run))
    run_config = run.load_config()
    validate(run_config)  # perhaps somebody has changed the file
    return fresh_encoder(run_config), choose_untrained(run, config.output_dir)


if __name__ == "__main__":
    main()
