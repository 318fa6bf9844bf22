"""Folders of runs that were never trained: what a report reads of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

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
    folder.plan_figures.write_text('{"steps_to_do": 1000}')
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


def picture(path: Path, width: int = 40) -> None:
    """Write a picture of noise, 30 pixels high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(1).integers(0, 255, (30, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def add_evaluations(folder: RunFolder) -> None:
    """Write what probe and attack leave."""
    per_class = {"zero": 0.5, "one": None}
    linear = {"final_top1": 0.613, "best_top1": 0.62, "best_epoch": 7, "per_class": per_class}
    results = {"encoder_step": 21, "knn_top1": 0.5, "probes": {"linear": linear}}
    folder.probe.mkdir()
    (folder.probe / "results.json").write_text(json.dumps(results))
    (folder.probe / "metrics.csv").write_text("step,probe/linear_top1\n0,0.4\n1,0.6\n")
    spread = {"mean": 0.123, "std": 0.01, "num_infinite": 0}
    quantities = dict.fromkeys(("mse", "ssim", "ssim_torchmetrics", "psnr"), spread)
    attack = {"client": 0, "num_images": 8, "num_known": 15, "encoder_step": 21,
              "smashed_shape": [4, 8, 8], "attacks": {"decoder": quantities}}  # fmt: skip
    folder.attack.mkdir()
    (folder.attack / "attack.json").write_text(json.dumps(attack))
    for path in (
        folder.probe / "per_class.png", folder.probe / "embedding_map.png",
        folder.attack / "reconstructions.png", folder.pictures / "partition.png",
        folder.pictures / "views.png", folder.pictures / "reconstructions_round0001.png",
        folder.pictures / "reconstructions_round0003.png",
    ):  # fmt: skip
        picture(path)
