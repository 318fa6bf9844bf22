"""Folders of runs that were never trained: what a report reads of them."""

import json
from collections.abc import Sequence
from pathlib import Path

from mocosfl.runs.folder import RunFolder
from tests.support.configurations import Compose

MB = 2**20


def written_run(
    compose: Compose,
    path: Path,
    overrides: Sequence[str] = (),
    *,
    top1: float | None = 0.5,
    monitor: float | None = 0.4,
    megabytes: float | None = 30.0,
    steps: int = 1000,
    finished: bool = True,
) -> RunFolder:
    """Write what a run leaves, or a part of it."""
    folder = RunFolder(path)
    folder.save_config(compose([f"run_dir={path}", *overrides]))
    folder.plan.write_text("rounds           2 of 500 steps = 1,000 steps\n")
    knn = "" if monitor is None else monitor
    folder.metrics.write_text(
        f"step,train/loss,val/knn_top1\n0,9,0.1\n{steps - 1},3.25,{knn}\n{steps - 1},3.25,\n"
    )
    if megabytes is not None:
        sent = {"up_bytes": megabytes * MB, "down_bytes": MB, "paper_bytes": 2.5 * MB}
        folder.overhead.write_text(json.dumps({"num_steps": steps, "mean_client": sent}))
    if finished:
        folder.finished.write_text(json.dumps({"step": steps, "seconds": 9.0}))
    if top1 is not None:
        folder.probe.mkdir()
        probes = {
            "linear": {"final_top1": top1},
            "semi-supervised 10 %": {"final_top1": top1 / 2},
            "semi-supervised 1 %": {"final_top1": top1 / 4},
        }
        results = {"encoder_step": steps, "knn_top1": top1 + 0.01, "probes": probes}
        (folder.probe / "results.json").write_text(json.dumps(results))
    return folder
