"""Weights & Biases: what an offline run holds, who may start one, and what is refused.

The slow tests read back what W&B has written to disk, which is what `wandb sync` uploads.
"""

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from mocosfl.evaluation import probe_run
from mocosfl.evaluation.probe_run import default_probe_config, log_probes, probe_into
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.read_metrics import read_curves
from mocosfl.tracking.loggers import log_picture, log_to_wandb, open_loggers
from mocosfl.tracking.wandb_run import X_AXIS, best_values, overhead_values
from mocosfl.training.callbacks.checkpoints import LastCheckpoint
from mocosfl.training.run import train
from tests.support.checkpoints import break_off
from tests.support.configurations import QUICK, Compose, cached_config
from tests.support.paths import ROOT
from tests.support.wandb_file import OfflineRun, offline_runs

WANDB = ["logger=csv_wandb", "callbacks.pictures=true", "callbacks.probe_at_end=true"]


@pytest.fixture(autouse=True)
def without_the_shells_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "MODE", "PROJECT", "ENTITY", "RUN_ID", "SWEEP_ID", "RUN_GROUP"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)


# ---- without W&B's process


class Started:
    """Stands in for W&B: keeps what it was started with, and what it was told."""

    def __init__(self) -> None:
        self.arguments: list[dict[str, Any]] = []
        self.exit_codes: list[int] = []
        self.summary: dict[str, float] = {}
        self.pictures: list[str] = []
        self.id, self.url = "", "https://w.b/r"
        self.entity, self.project = "team", "birds"  # where W&B puts it

    def init(self, **arguments: Any) -> "Started":
        self.arguments.append(arguments)
        self.id = arguments.get("id", "")
        return self

    def define_metric(self, name: str, *, step_metric: str) -> None: ...

    def log(self, values: dict[str, Any]) -> None:
        self.pictures += values

    def finish(self, *, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    fake = Started()
    monkeypatch.setattr(wandb, "init", fake.init)
    return fake


def test_first_start_describes_the_run_and_later_ones_only_name_it(
    started: Started, compose_quick: Compose, tmp_path: Path
):
    folder, config = RunFolder(tmp_path), compose_quick(["logger=csv_wandb", "notes=why"])
    with open_loggers(config, folder):
        pass
    log_to_wandb(folder, config, {"probe/knn_top1": 0.5})
    first, later = started.arguments
    assert first["id"] == later["id"] == folder.wandb_id.read_text()
    assert first["config"]["clients"] == 100
    assert (first["resume"], later["resume"]) == (None, "allow")
    described = {"name", "group", "tags", "config", "job_type", "notes"}
    assert described <= set(first)
    assert not described & set(later)
    assert {first["mode"], later["mode"]} == {"offline"}
    assert started.summary == {"probe/knn_top1": 0.5}


def test_run_that_breaks_off_is_marked_as_failed(
    started: Started, compose_quick: Compose, tmp_path: Path
):
    config = compose_quick(["logger=csv_wandb"])
    with pytest.raises(SystemExit), open_loggers(config, RunFolder(tmp_path)):
        raise SystemExit("broken off")
    with open_loggers(config, RunFolder(tmp_path)):
        pass
    assert started.exit_codes == [1, 0]


def test_best_accuracy_is_that_of_the_whole_run(
    started: Started, compose_quick: Compose, quick_run: RunFolder, run_copy: RunFolder
):
    with open_loggers(compose_quick(["logger=csv_wandb"]), run_copy):
        pass  # nothing more is logged, as in a resumed run before its next monitor
    best = max(read_curves(quick_run.metrics)["val/knn_top1"][1])
    assert started.summary == {"best/knn_top1": best} == best_values(quick_run)


def test_overhead_is_that_of_the_mean_client(quick_run: RunFolder):
    values = overhead_values(quick_run)
    sent = json.loads(quick_run.overhead.read_text())["mean_client"]
    assert values["overhead/client_up_bytes"] == sent["up_bytes"] > 0
    assert values["overhead/client_bytes"] == sent["up_bytes"] + sent["down_bytes"]
    assert values["overhead/client_paper_bytes"] == sent["paper_bytes"]
    assert values["overhead/client_memory_bytes"] > 0


def test_agents_run_has_the_agents_id_project_and_mode(
    started: Started, compose_quick: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    monkeypatch.setenv("WANDB_RUN_ID", "agents12")
    folder, config = RunFolder(tmp_path), compose_quick(["logger=wandb_online"])
    with open_loggers(config, folder):
        pass
    (arguments,) = started.arguments
    assert not {"id", "project", "entity"} & set(arguments)  # W&B takes them from the environment
    assert arguments["mode"] == "online"
    assert folder.wandb_id.read_text() == "agents12"  # so that a probe goes on with it
    monkeypatch.delenv("WANDB_SWEEP_ID")
    log_to_wandb(folder, config, {})
    # To the run of the sweep's team, and not to a second one in one's own account.
    place = {"id": "agents12", "entity": "team", "project": "birds"}
    assert place.items() <= started.arguments[-1].items()
    folder.wandb_place.unlink()  # as in a run from before it was kept
    log_to_wandb(folder, config, {})
    place = {"id": "agents12", "entity": None, "project": "mocosfl"}
    assert place.items() <= started.arguments[-1].items()


def test_an_offline_run_leaves_its_place_to_the_upload(
    started: Started, compose_quick: Compose, tmp_path: Path
):
    folder, config = RunFolder(tmp_path), compose_quick(["logger=csv_wandb"])
    for project in ("mocosfl", "other"):
        config.logger.wandb_project = project
        with open_loggers(config, folder):
            pass
    assert not folder.wandb_place.exists()
    assert [given["project"] for given in started.arguments] == ["mocosfl", "other"]


def test_agent_refuses_a_run_that_is_offline(
    started: Started, compose_quick: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    with (
        pytest.raises(ValueError, match=r"wandb_mode=offline: `wandb agent`.*logger=wandb_online"),
        open_loggers(compose_quick(["logger=csv_wandb"]), RunFolder(tmp_path)),
    ):
        pass


@pytest.mark.parametrize(
    ("mode", "way_out"), [("csv_wandb", "can be written to"), ("wandb_online", "`wandb login`")]
)
def test_refusal_of_wandb_is_told_with_a_way_out(
    compose_quick: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    way_out: str,
):
    def refuse(**_: Any) -> None:
        raise wandb.errors.CommError("no")

    monkeypatch.setattr(wandb, "init", refuse)
    config, folder = compose_quick([f"logger={mode}"]), RunFolder(tmp_path)
    with (
        pytest.raises(ValueError, match=rf"W&B can't start \(no\); .*{way_out}.*logger=csv"),
        open_loggers(config, folder),
    ):
        pass
    assert not folder.wandb_id.exists()  # else the next start would describe nothing


@pytest.mark.parametrize(("mode", "reports"), [("csv_wandb", "false"), ("wandb_online", None)])
def test_offline_run_lets_wandb_report_no_errors_of_its_own(
    compose_quick: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    reports: str | None,
):
    def start(**_: Any) -> None:
        assert os.environ.get("WANDB_ERROR_REPORTING") == reports
        raise wandb.errors.CommError("far enough")

    monkeypatch.setenv("WANDB_ERROR_REPORTING", "put back behind the test")
    monkeypatch.delenv("WANDB_ERROR_REPORTING")
    monkeypatch.setattr(wandb, "init", start)
    config = compose_quick([f"logger={mode}"])
    with pytest.raises(ValueError, match="far enough"), open_loggers(config, RunFolder(tmp_path)):
        pass


def test_run_without_wandb_is_never_given_one(
    started: Started, compose_quick: Compose, quick_run: RunFolder
):
    log_to_wandb(quick_run, compose_quick(["logger=csv_wandb"]), {"probe/knn_top1": 0.5})
    log_to_wandb(quick_run, compose_quick(["logger=csv"]), {"probe/knn_top1": 0.5})
    assert started.arguments == []


def test_picture_of_a_step_says_how_far_the_run_is(
    started: Started, compose_quick: Compose, tmp_path: Path
):
    folder = RunFolder(tmp_path)
    with open_loggers(compose_quick(["logger=csv_wandb"]), folder) as loggers:
        logger: Any = loggers[-1]
        logger.log_metrics = lambda values, step: started.arguments.append(values | {"at": step})
        logo = next((ROOT / "docs" / "results").rglob("*.png"))
        log_picture(loggers, "privacy/reconstructions", logo, step=6, progress={X_AXIS: 84.0})
    logged = started.arguments[-1]
    assert (logged["at"], logged[X_AXIS]) == (6, 84.0)
    assert isinstance(logged["privacy/reconstructions"], wandb.Image)


# ---- what an offline run holds


class Offline(SimpleNamespace):
    """A run that was broken off, resumed, probed at its end and probed again."""

    folder: RunFolder
    parts: list[OfflineRun]
    said: bytes  # what came to the trap


@pytest.fixture(scope="module")
def offline(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Offline:
    """Train with W&B's default, and count what would like to speak to a network meanwhile."""
    folder = RunFolder(tmp_path_factory.mktemp("offline") / "run")
    config: Any = cached_config((f"data_dir={data_dir}", *QUICK, *WANDB)).copy()
    config.run_dir = str(folder.path)
    settings = default_probe_config()
    settings.num_epochs = 2
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as trap:
        patch.setattr(probe_run, "default_probe_config", lambda: settings)
        address = f"http://127.0.0.1:{trap.getsockname()[1]}"
        for name in ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "http_proxy"):
            patch.setenv(name, address)
        patch.delenv("WANDB_MODE", raising=False)
        patch.setenv("HOME", str(folder.path.parent))  # no earlier login
        patch.setattr("builtins.input", lambda *_: pytest.fail("asked the user"))
        wandb.teardown()  # of other tests, whose process has another environment
        with patch.context() as breaking:
            break_off(breaking, 10, behind=LastCheckpoint)
            with pytest.raises(SystemExit):
                train(config, folder, resume=False)
        train(config, folder, resume=True)
        encoder = probe_run.read_encoder(folder.best)
        again = folder.path / "probe_best"
        report = probe_into(again, encoder, settings)
        log_probes(folder, config, report, again, name="probe_best")
        wandb.teardown()
        trap.settimeout(0.1)
        said = b""  # what came to the trap, to know who spoke
        with suppress(TimeoutError):
            connection, _ = trap.accept()
            with connection:
                connection.settimeout(1)
                said = b"connected: "
                said += connection.recv(500)
    return Offline(folder=folder, parts=offline_runs(folder.path), said=said)


@pytest.mark.slow
def test_offline_run_asks_no_network(offline: Offline):
    assert offline.said == b""


@pytest.mark.slow
def test_parts_of_a_run_share_an_id_and_only_the_first_describes_it(offline: Offline):
    first, *later = offline.parts
    assert [part.run.run_id for part in offline.parts] == 3 * [offline.folder.wandb_id.read_text()]
    assert first.run.display_name.startswith("digits_mocosfl_shards_n100_cut1_")
    assert list(first.run.tags) == ["digits", "mocosfl", "shards", "cut1", "n100"]
    assert (first.run.project, first.run.job_type) == ("mocosfl", "train")
    assert first.config["clients"] == 100
    assert first.config["config"]["moco"]["queue_length"] == 400
    for part in later:
        assert (part.run.display_name, list(part.run.tags)) == ("", [])
        assert set(part.config) <= {"_wandb"}
    assert [bool(part.run.resume) for part in offline.parts] == [False, True, True]
    assert [part.exit_code for part in offline.parts] == [1, 0, 0]


@pytest.mark.slow
def test_curves_are_those_of_the_csv_file_and_say_how_far_the_run_is(offline: Offline):
    rows = [row for part in offline.parts for row in part.history if "train/loss" in row]
    steps, losses = read_curves(offline.folder.metrics)["train/loss"]
    assert [row["trainer/global_step"] for row in rows] == steps == list(range(21))
    assert [row["train/loss"] for row in rows] == pytest.approx(losses)
    assert [row[X_AXIS] for row in rows] == [12 * (step + 1) for step in range(21)]
    assert rows[6]["progress/rounds"] == 1


@pytest.mark.slow
def test_each_curve_is_drawn_over_the_images_seen_in_each_part(offline: Offline):
    curves = set(read_curves(offline.folder.metrics)) - {"progress/rounds", X_AXIS}
    for part in offline.parts:
        assert {metric.step_metric for metric in part.metrics.values()} == {X_AXIS}
    # A part that logs none of them has their names, not patterns alone.
    assert curves <= set(offline.parts[-1].metrics)


def hidden(name: str) -> bool:
    """Whether a value is W&B's own, or of a picture or table, which lie with their steps."""
    return name.startswith(("_", "pictures/", "trainer/")) or name.count("/") > 1


@pytest.mark.slow
def test_summary_holds_best_probes_and_overhead_and_no_probe_takes_anothers_place(
    offline: Offline,
):
    _, trained, probed = offline.parts
    found = json.loads((offline.folder.probe / "results.json").read_text())
    assert trained.summary["best/knn_top1"] == best_values(offline.folder)["best/knn_top1"]
    assert trained.summary["probe/knn_top1"] == found["knn_top1"]
    assert trained.summary["probe/linear_top1_final"] == found["probes"]["linear"]["final_top1"]
    assert overhead_values(offline.folder).items() <= trained.summary.items()
    # W&B takes the last part's summary for that of the run, so each part has all of it.
    earlier = {name: value for name, value in trained.summary.items() if not hidden(name)}
    assert {name: probed.summary.get(name) for name in earlier} == pytest.approx(earlier)
    assert earlier["train/loss"] == pytest.approx(
        read_curves(offline.folder.metrics)["train/loss"][1][-1]
    )
    assert probed.summary["probe/per_class/nrows"] == 10
    assert "probe_best/linear_top1_final" in probed.summary


@pytest.mark.slow
def test_pictures_and_the_table_of_classes_are_there_once(offline: Offline):
    for name in ("pictures/partition", "pictures/views", "probe/per_class_picture"):
        rows = [row for part in offline.parts for row in part.history if f"{name}/path" in row]
        assert [row[f"{name}/_type"] for row in rows] == ["image-file"]
    (row,) = [r for r in offline.parts[1].history if "probe/per_class/path" in r]
    (file,) = offline.folder.path.glob(f"wandb/offline-run-*/files/{row['probe/per_class/path']}")
    table = json.loads(file.read_text())
    columns = ["class", "linear", "semi-supervised 10 %", "semi-supervised 1 %"]
    assert table["columns"] == columns
    found = json.loads((offline.folder.probe / "results.json").read_text())["probes"]
    expected = [
        [digit, *(found[name]["per_class"][digit] for name in columns[1:])]
        for digit in found["linear"]["per_class"]
    ]
    assert table["data"] == expected


@pytest.mark.slow
def test_wandb_sync_finds_the_parts(offline: Offline):
    folders = sorted(offline.folder.path.glob("wandb/offline-run-*"))
    command = [sys.executable, "-m", "wandb", "sync", "--dry-run", *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Would sync 3 run(s)" in done.stderr


@pytest.mark.slow
def test_command_that_has_no_wandb_does_not_wait_for_it():
    modules = "mocosfl.training.run, mocosfl.tracking.loggers"
    code = f"import sys, {modules}; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
