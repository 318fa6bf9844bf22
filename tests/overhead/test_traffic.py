"""Bytes by hand, the paper's table 1, and the bytes of tensors that cross the cut in real steps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from mocosfl.config.derived import batch_sizes, client_kinds
from mocosfl.config.schema import Config
from mocosfl.data.round_plan import draw_present
from mocosfl.federation.averaging import Spread
from mocosfl.federation.client_pool import ClientPool
from mocosfl.federation.folding import stacked_state
from mocosfl.federation.server import ServerOutput, SmashedStep
from mocosfl.overhead.network import build_network, num_values
from mocosfl.overhead.summary import compute_bytes, compute_overhead, paper_megabytes
from mocosfl.overhead.traffic import Rates, Shares, present_fraction, rates, shares_of, traffic
from mocosfl.runs.folder import RunFolder
from mocosfl.training import fit
from mocosfl.training.module import MocoSFL
from mocosfl.training.run import train
from tests.support.configurations import Compose, changed
from tests.support.edge_federation import with_edge

HEAD = 3 * 64 * 3 * 3 + 2 * 64
LATENT = 64 * 32 * 32
QUIET = "callbacks.measure_client_memory=false"


def rates_of(config: Config, batch_size: int = 1) -> Rates:
    return rates(config, build_network(config), batch_size)


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        ("table1_fl_ssl", "8269.2"),
        ("table1_mocosfl_1", "1.4 + 5000"),
        ("table1_mocosfl_3", "57.9 + 5000"),
        ("table1_taressfl", "39.1"),
    ],
)
def test_paper_convention_gives_table_1(compose: Compose, experiment: str, expected: str):
    config = compose([f"experiment={experiment}", QUIET])
    overhead = compute_overhead(config, np.full(1000, 50), images_from="")
    (client,) = overhead.clients
    assert paper_megabytes(client.traffic) == expected
    # 200 epochs of 50 images, whichever way they are made up.
    assert overhead.num_steps * overhead.participation == 10_000


def test_fl_ssl_needs_batch_norms_statistics_for_the_papers_figure(compose: Compose):
    config = compose(["experiment=table1_fl_ssl", QUIET])
    network = build_network(config)
    trained = sum(p.numel() for p in network.client.parameters())
    assert num_values(network.client) == trained + 2 * 4096
    assert round(100 * 4 * trained / 2**20, 1) == 8266.0


def test_step_of_mocosfl_sends_query_and_key_up_and_a_gradient_down(compose: Compose):
    step = rates_of(compose(["dataset=cifar10"]), batch_size=5)
    assert (step.step_up, step.step_down) == (2 * 5 * LATENT * 4, 5 * LATENT * 4)
    assert (step.sync, step.paper_sync) == (HEAD * 4, HEAD * 4)


def test_monacosfl_sends_both_views_and_both_heads(compose: Compose):
    step = rates_of(compose(["dataset=cifar10", "method=monacosfl"]))
    assert (step.step_up, step.step_down) == (4 * LATENT * 4, 2 * LATENT * 4)
    assert (step.sync, step.paper_sync) == (2 * HEAD * 4, HEAD * 4)


def test_bf16_halves_smashed_data_and_leaves_weights(compose: Compose):
    step = rates_of(compose(["dataset=cifar10", "trainer=bf16"]))
    assert (step.step_up, step.step_down, step.sync) == (2 * LATENT * 2, LATENT * 2, HEAD * 4)
    assert step.paper_step == LATENT * 4  # the paper counts fp32


def test_labels_travel_in_place_of_keys(compose: Compose):
    step = rates_of(compose(["dataset=cifar10", "method=sfl_supervised"]), batch_size=3)
    assert (step.step_up, step.step_down) == (3 * (LATENT * 4 + 8), 3 * LATENT * 4)
    assert step.sync == HEAD * 4


def test_whole_network_travels_at_a_sync_and_nothing_in_a_step(compose: Compose):
    step = rates_of(compose(["dataset=cifar10", "method=fl_moco"]))
    backbone, projector = 11_176_512 - 9408 + 1728, 513 * 1024 + 1025 * 1024
    assert step == Rates(0, 0, 4 * (backbone + projector), 0, 4 * (backbone + projector))


@pytest.mark.parametrize("method", ["central_moco", "central_supervised"])
def test_nothing_travels_in_central_training(compose: Compose, method: str):
    config = compose(["dataset=cifar10", f"method={method}", QUIET])
    assert rates_of(config) == Rates(0, 0, 0, 0, 0)
    assert set(compute_bytes(config, np.array([50_000]), num_steps=700).values()) == {0.0}


def test_client_that_is_sampled_takes_part_in_its_share_of_the_steps(compose: Compose):
    config = compose(["dataset=cifar10", "clients=1000"])
    # Two whole rounds of 50 steps with a sync each, and 10 steps of a third without.
    sent = compute_bytes(config, np.full(1000, 50), num_steps=110)
    assert sent["up_bytes"] == pytest.approx(0.1 * (110 * 2 * LATENT * 4 + 2 * HEAD * 4))
    assert sent["down_bytes"] == pytest.approx(0.1 * (110 * LATENT * 4 + 2 * HEAD * 4))
    assert sent["paper_bytes"] == pytest.approx(0.1 * (110 * 2 * LATENT * 4 + 2 * HEAD * 4))


def test_rich_clients_send_their_larger_batch(compose: Compose):
    config = compose(["dataset=cifar10", "clients=100", "heterogeneity=rich_poor", QUIET])
    assert [tuple(kind) for kind in client_kinds(config)] == [("rich", 20, 16), ("poor", 80, 1)]
    assert batch_sizes(config).tolist() == [16] * 20 + [1] * 80
    overhead = compute_overhead(config, np.full(100, 500), images_from="")
    rich, poor = overhead.clients
    assert rich.rates.step_up == 16 * poor.rates.step_up
    assert rich.rates.sync == poor.rates.sync
    mean = compute_bytes(config, np.full(100, 500), num_steps=overhead.num_steps)
    expected = 0.2 * rich.traffic.up + 0.8 * poor.traffic.up
    assert mean["up_bytes"] == pytest.approx(expected)


@pytest.mark.parametrize("dropout", [0.1, 0.9])
def test_expected_part_of_the_pool_is_what_is_drawn(compose: Compose, dropout: float):
    config = compose(["clients.num_clients=5"])
    config.clients.dropout_probability = dropout
    drawn = draw_present(40_000, 5, dropout, seed=1, round_index=0).mean()
    assert present_fraction(config) == pytest.approx(drawn, rel=0.02)


def test_missed_steps_cost_neither_smashed_data_nor_the_weights_sent_up(compose: Compose):
    config = compose(["dataset=cifar10"])
    sent = Rates(step_up=100, step_down=50, sync=7, paper_step=50, paper_sync=7)
    full = traffic(config, sent, steps=10, syncs=2, shares=Shares(1, 1))
    config.clients.dropout_probability = 0.25
    dropped = traffic(config, sent, steps=10, syncs=2, shares=Shares(1, 1))
    assert full == (1014, 514, 14, 1000)
    assert dropped == pytest.approx((750 + 2 * 0.75 * 7, 375 + 14, 2 * 0.75 * 7, 750))


def test_rounds_of_uploads_alone_and_of_nothing_save_their_part(compose: Compose):
    sent = Rates(step_up=100, step_down=50, sync=7, paper_step=50, paper_sync=7)
    shares = shares_of({"A": 5, "B": 3, "C": 2})
    assert shares == (0.8, 0.5)
    saved = traffic(compose([]), sent, steps=10, syncs=2, shares=shares)
    assert saved == pytest.approx((0.8 * 1000 + 7, 0.5 * 500 + 7, 7, 10 * 50 * (0.8 + 0.5)))


@pytest.mark.parametrize("rounds", [{}, {"A": 0}, {"A": 2, "B": -1}, {"A": 2, "D": 1}], ids=str)
def test_impossible_rounds_by_mode_are_refused(rounds: dict[str, int]):
    with pytest.raises(ValueError, match="rounds_by_mode="):
        shares_of(rounds)


class Crossing:
    """Counts the bytes of what really passes between clients and server."""

    def __init__(self) -> None:
        self.up = self.down = 0

    def watch(self, module: MocoSFL) -> None:
        federation = module.federation
        clients = federation.clients
        if not federation.whole_network:
            learn = federation.learn

            def crossed(step: SmashedStep) -> ServerOutput:
                self._smashed(step)
                return learn(step)

            federation.learn = crossed  # type: ignore[method-assign]
        synchronise = clients.synchronise

        def counted(align_momentum: bool, places: Tensor | None = None) -> Spread | None:
            if clients.num_clients > 1:  # one machine has nothing to send
                self._weights(clients, align_momentum)
            return synchronise(align_momentum, places)

        clients.synchronise = counted  # type: ignore[method-assign]

    def _smashed(self, step: SmashedStep) -> None:
        sent = (step.query, step.key, step.labels)
        self.up += sum(tensor.nbytes for tensor in sent if tensor is not None)
        if step.query.requires_grad:
            step.query.register_hook(self._gradient)

    def _gradient(self, gradient: Tensor) -> None:
        self.down += gradient.nbytes

    def _weights(self, clients: ClientPool, align_momentum: bool) -> None:
        if clients.frozen:
            return  # the mean of equal heads: nobody needs to send anything
        for folded in [clients.online, clients.momentum][: 2 if align_momentum else 1]:
            weights = sum(stacked.nbytes for stacked in stacked_state(folded).values())
            self.up += weights
            self.down += weights


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["method=monacosfl"],
        ["optimizer.client_lr=0"],
        ["split=cut2_c4s2"],
        ["moco.symmetric=none", "trainer.precision=fp64"],
        ["trainer=bf16", "trainer.accelerator=cpu"],
        ["trainer=bf16", "trainer.accelerator=cpu", "split=cut2_c4s2", "method=monacosfl"],
        ["method=sfl_supervised"],
        ["method=fl_moco"],
        ["heterogeneity=rich_poor", "clients.num_clients=10", "clients.participation=1.0"],
    ],
    ids=str,
)
@pytest.mark.slow
def test_true_bytes_are_those_of_the_tensors_that_cross_the_cut(
    compose_quick: Compose, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
):
    # 8 of 21 steps: a round of 7 with syncs after steps 3, 6 and 7, and a step of the next.
    config = compose_quick([*overrides, "trainer.max_steps=8", "callbacks.knn_every_rounds=0"])
    crossing, build = Crossing(), fit.build_run

    def build_watched(*args: Any, **more: Any) -> MocoSFL:
        module = build(*args, **more)
        crossing.watch(module)
        return module

    monkeypatch.setattr(fit, "build_run", build_watched)
    folder = RunFolder(Path(config.run_dir))
    train(config, folder, resume=False)
    mean = json.loads(folder.overhead.read_text())["mean_client"]
    num_clients = config.clients.num_clients
    assert crossing.up == pytest.approx(num_clients * mean["up_bytes"])
    assert crossing.down == pytest.approx(num_clients * mean["down_bytes"])
    assert crossing.up > 0


def test_changed_learning_rate_leaves_the_bytes_alone(compose: Compose):
    slow = changed(compose(["dataset=cifar10"]), {"optimizer.client_lr": 1e-6})
    assert rates_of(slow) == rates_of(compose(["dataset=cifar10"]))


@pytest.mark.parametrize(("precision", "num_bytes"), [("fp32", 4), ("fp16", 2), ("int8", 1)])
def test_prediction_counts_the_wire_s_precision(
    compose_quick: Compose, precision: str, num_bytes: int
) -> None:
    config = with_edge(compose_quick([]), precision=precision)
    rate = rates(config, build_network(config), 2)
    smashed = 2 * 4 * 16 * 16  # images x channels x height x width
    assert (rate.step_up, rate.step_down) == (2 * smashed * num_bytes, smashed * num_bytes)
    assert rate.sync == 116 * 4  # weights are fp32 whatever the wire's precision
