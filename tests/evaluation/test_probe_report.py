"""The probes' report holds what was measured on the frozen encoder, in words and in files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mocosfl.config.hydra_setup import compose_file
from mocosfl.config.probe import ProbeConfig
from mocosfl.evaluation import probe_report
from mocosfl.evaluation.probe_report import (
    ProbeReport,
    accuracies_by_name,
    dataset_of,
    probe_encoder,
    table,
    write_probes,
)
from mocosfl.runs.checkpoint import fingerprint, read_encoder
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves

EPOCHS = 3
NAMES = ["linear", "semi-supervised 10 %", "semi-supervised 1 %"]


@pytest.fixture(scope="module")
def probe_config() -> Any:
    overrides = ["checkpoint=x", f"num_epochs={EPOCHS}", "hidden_dim=16", "knn_num_neighbors=10",
                 "accelerator=cpu", "embedding_map_images=20"]  # fmt: skip
    return compose_file("linear_probe", overrides)


@pytest.fixture(scope="module")
def report(quick_run: RunFolder, probe_config: ProbeConfig) -> ProbeReport:
    encoder = read_encoder(quick_run.last)
    return probe_encoder(encoder, dataset_of(encoder, None), probe_config)


def test_all_probes_are_run_on_the_test_images(report: ProbeReport):
    assert [probe.name.recorded for probe in report.probes] == NAMES
    assert all(len(probe.curve) == EPOCHS for probe in report.probes)
    assert 0.2 < report.knn_top1 < 1  # chance is 0.1
    # Accuracies are of the 359 test images.
    top1s = [report.knn_top1, *(probe.final_top1 for probe in report.probes)]
    counts = [top1 * 359 for top1 in top1s]
    assert counts == pytest.approx([round(count) for count in counts], abs=1e-3)


def test_report_holds_the_encoders_unchanged_fingerprint(report: ProbeReport, quick_run: RunFolder):
    assert report.fingerprint == fingerprint(read_encoder(quick_run.last).network)


def test_encoder_that_changes_meanwhile_is_noticed(
    quick_run: RunFolder, probe_config: ProbeConfig, monkeypatch: pytest.MonkeyPatch
):
    encoder = read_encoder(quick_run.last)
    good = probe_report.linear_probe

    def meddling(*args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            next(iter(encoder.network.parameters())).view(-1)[0] += 1e-3
        return good(*args, **kwargs)

    monkeypatch.setattr(probe_report, "linear_probe", meddling)
    with pytest.raises(AssertionError, match="the frozen encoder changed"):
        probe_encoder(encoder, dataset_of(encoder, None), probe_config)


def test_table_names_final_and_best(report: ProbeReport):
    header, knn, *rows, note = table(report).splitlines()
    assert header.split() == ["probe", "final", "best", "at", "epoch"]
    assert knn.split() == ["kNN", f"{100 * report.knn_top1:.2f}%"]
    for row, probe in zip(rows, report.probes, strict=True):
        assert row.startswith(probe.name.recorded)
        final, best, epoch = row.removeprefix(probe.name.recorded).split()
        assert final == f"{100 * probe.final_top1:.2f}%"
        assert (best, epoch) == (f"{100 * probe.best_top1:.2f}%", str(probe.best_epoch))
    assert "same test images" in note


def test_files_hold_the_whole_result(report: ProbeReport, quick_run: RunFolder, tmp_path: Path):
    encoder, folder = read_encoder(quick_run.last), tmp_path / "probe"
    classes = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for _ in range(2):  # a second report replaces the first
        write_probes(encoder, report, classes, folder)
    results = json.loads((folder / "results.json").read_text())
    assert results["encoder_step"] == encoder.step == 21
    assert results["encoder"] == str(quick_run.last)
    assert results["encoder_sha256"] == report.fingerprint
    assert results["dataset"] == "digits"
    assert results["knn_top1"] == report.knn_top1
    assert list(results["probes"]) == NAMES
    for probe in report.probes:
        written = results["probes"][probe.name.recorded]
        assert written["final_top1"] == probe.final_top1
        assert (written["best_top1"], written["best_epoch"]) == (probe.best_top1, probe.best_epoch)
        assert written["per_class"] == pytest.approx(
            dict(zip(classes, probe.per_class.tolist(), strict=True))
        )
    curves = read_curves(folder / "metrics.csv")
    keys = ["probe/linear_top1", "probe/semi_10_percent_top1", "probe/semi_1_percent_top1"]
    assert list(curves) == keys
    for key, probe in zip(keys, report.probes, strict=True):
        assert curves[key][0] == list(range(EPOCHS))
        assert curves[key][1] == pytest.approx(probe.curve)
    for picture in ("per_class.png", "embedding_map.png"):
        assert (folder / picture).read_bytes()[:4] == b"\x89PNG"


def test_summary_has_final_and_best_of_each_probe(report: ProbeReport):
    values = accuracies_by_name(report)
    assert values["probe/knn_top1"] == report.knn_top1
    assert values["probe/linear_top1_final"] == report.probes[0].final_top1
    assert values["probe/semi_1_percent_top1_best"] == report.probes[2].best_top1
    assert len(values) == 7
