"""`python -m mocosfl.overhead`: what it prints, writes and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from mocosfl.config.hydra_setup import composed
from mocosfl.data.sources import load_dataset
from mocosfl.overhead.__main__ import main
from mocosfl.overhead.cohort import find_cohort
from mocosfl.overhead.summary import compute_overhead, describe_overhead
from tests.support.configurations import Compose

QUIET = "callbacks.measure_client_memory=false"


def test_paper_figures_are_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    main(["experiment=table1_mocosfl_3", QUIET])
    out = capsys.readouterr().out
    assert "57.9 + 5000 MB" in out
    assert "equal parts of dataset.num_train_images=50,000" in out
    assert "not measured (callbacks.measure_client_memory=false)" in out
    assert list(tmp_path.iterdir()) == []  # no run folder, no log


def test_client_of_taressfl_sends_39_megabytes_and_receives_nothing(
    capsys: pytest.CaptureFixture[str],
):
    main(["experiment=table1_taressfl", "taressfl=on", "taressfl.expert=some", QUIET])
    out = capsys.readouterr().out
    assert "paper's convention   39.1 MB" in out
    # 10,000 images a client, a query and a key of 4 x 16 x 16 numbers each.
    assert f"{2 * 4 * 16 * 16 * 4:,} up, 0 down" in out
    assert f"{2 * 10_000 * 4 * 16 * 16 * 4 / 2**20:.2f} up + 0.00 down" in out
    assert "0 syncs" in out


def test_expert_in_one_place_sends_nothing(capsys: pytest.CaptureFixture[str]):
    main(["experiment=table4_experts", QUIET])
    out = capsys.readouterr().out
    assert "0.00 up + 0.00 down" in out
    assert "78,000 steps" in out  # 200 rounds of 390: published


def test_json_holds_the_same_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "figures.json"
    main(["--json", str(file), "dataset=cifar10", "clients=20", "split=cut2", QUIET])
    values = json.loads(file.read_text())
    (client,) = values["clients"]
    assert values["num_steps"] == 100_000
    assert client["rates"]["step_up"] == 2 * 5 * 64 * 32 * 32 * 4
    assert f"{client['rates']['step_up']:,} up" in capsys.readouterr().out
    assert client["measured_memory"]["peak_bytes"] is None
    parts = sum(v for k, v in client["counted_memory"].items() if k != "total")
    assert client["counted_memory"]["total"] == parts
    assert values["mean_client"]["up_bytes"] == client["traffic"]["up"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["split=cut99"], "cut99"),
        (["clients.batch_sise=3"], "batch_sise"),
        (["clients.batch_size=0"], "clients.batch_size=0: must be at least 1"),
        (
            ["dataset=arrays", "dataset.path=nowhere", "dataset.image_size=32",
             "dataset.num_classes=3"],
            "dataset.num_train_images=null: the data set arrays is not in",
        ),
        (
            ["dataset=digits", "clients.num_clients=2000", "clients.participation=0.01",
             "data_dir=nowhere"],
            "only 1438 training images; lower clients.num_clients",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_mistake_is_told_in_words(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, QUIET])
    assert stopped.value.code == 1
    assert words in capsys.readouterr().err


def test_figures_of_a_gpus_run_need_no_gpu(capsys: pytest.CaptureFixture[str]):
    main(["trainer.accelerator=gpu", "dataset=digits", QUIET])
    assert "true MB" in capsys.readouterr().out


def test_sweeps_are_not_taken(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["-m", "split=cut1,cut2"])
    assert "unrecognized arguments: -m" in capsys.readouterr().err


def test_data_at_hand_are_dealt_as_in_a_run(compose: Compose, data_dir: Path):
    config = compose(["partition=dirichlet", "clients.num_clients=10"])
    load_dataset(config.dataset, data_dir)
    cohort = find_cohort(config)
    assert cohort.source == "dealt as in a run"
    assert cohort.counts.sum() == 1438
    assert cohort.counts.min() < cohort.counts.max()


def test_data_elsewhere_are_taken_in_equal_parts(compose: Compose, tmp_path: Path):
    config = compose(["clients.num_clients=10", f"data_dir={tmp_path}"])
    config.callbacks.knn_held_out_fraction = 0.1
    cohort = find_cohort(config)
    assert cohort.counts.tolist() == [130] * 5 + [129] * 5  # 1,438 less 143 held out
    assert "data not there" in cohort.source
    assert list(tmp_path.iterdir()) == []


def test_unequal_clients_are_told_as_least_mean_and_most():
    config = composed(["dataset=digits", "clients.num_clients=3", "clients.batch_size=2", QUIET])
    overhead = compute_overhead(config, np.array([10, 20, 33]), images_from="partition.json")
    assert "10 to 33, mean 21.0 (partition.json)" in describe_overhead(config, overhead)


def test_remarks_say_what_is_expected_or_an_upper_bound():
    config = composed(
        ["dataset=digits", "saving=by_loss", "clients.dropout_probability=0.1", QUIET]
    )
    counts = np.full(100, 14)
    text = describe_overhead(config, compute_overhead(config, counts, images_from=""))
    assert "as if no round saved anything" in text
    assert "dropout_probability=0.1" in text
    by_mode = {"A": 10, "B": 10, "C": 5}
    overhead = compute_overhead(config, counts, images_from="", rounds_by_mode=by_mode)
    assert "A 10, B 10, C 5" in describe_overhead(config, overhead)
