"""The plan: figures by hand, and the client bank's against the real one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mocosfl.config.derived import pool_size
from mocosfl.config.schema import Config
from mocosfl.federation.build import build_federation
from mocosfl.federation.optimizer import make_optimizer
from mocosfl.overhead.plan import make_plan
from mocosfl.overhead.plan_in_words import describe_plan
from tests.support.configurations import Compose, changed
from tests.support.edge_federation import with_edge
from tests.support.small_federation import bank_bytes, make_step

HEAD = 3 * 64 * 3 * 3 + 2 * 64  # the stem's convolution and its GroupNorm: 1,856
LATENT = 64 * 32 * 32  # values of an image's smashed data
CIFAR = ["partition=shards", "dataset=cifar10", "clients=1000"]
FIFTY_EACH = np.full(1000, 50)


def test_published_setting_by_hand(compose: Compose):
    plan = make_plan(compose(CIFAR), FIFTY_EACH)
    assert (plan.pool_size, plan.steps_per_round, plan.num_steps) == (100, 50, 100_000)
    assert (plan.rows_per_step, plan.keys_per_step) == (100, 200)
    assert (plan.syncs_per_round, plan.num_syncs) == (1, 2000)
    assert plan.smashed_shape == (64, 32, 32)
    assert plan.head_parameters == HEAD == 1856
    # torchvision's resnet18 has 11,176,512 without its fc, and a stem of 7x7, not 3x3.
    assert plan.head_parameters + plan.trunk_parameters == 11_176_512 - 9408 + 1728
    assert plan.projector_parameters == (512 + 1) * 1024 + (1024 + 1) * 1024
    assert plan.up_bytes == 4 * (2 * 50 * LATENT + HEAD)  # queries and keys; the head at the sync
    assert plan.down_bytes == 4 * (50 * LATENT + HEAD)  # gradients of the queries; the average
    # One online head for all; a momentum head and an SGD buffer for each client.
    assert plan.bank_bytes == 4 * (1 + 1000 + 1000) * HEAD
    assert plan.images_per_client == (50, 50.0, 50)


def test_traffic_is_that_of_the_published_table(compose: Compose):
    # Table 1 as the paper counts: weights once a sync, 200 syncs; latents of 200 epochs of 50
    # images, twice.
    weights = 200 * HEAD * 4 / 2**20
    latents = 2 * 200 * 50 * LATENT * 4 / 2**20
    assert weights == pytest.approx(1.4, abs=0.05)
    assert latents == pytest.approx(5000)
    # Ours is 3 x latents + 2 x weights in all, a client taking part in 200 of the 2,000 rounds.
    plan = make_plan(compose(CIFAR), FIFTY_EACH)
    total = 200 * (plan.up_bytes + plan.down_bytes) / 2**20
    assert total == pytest.approx(3 * latents / 2 + 2 * weights)


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        (  # both heads at a sync; both views through both heads
            {"method.name": "monacosfl", "moco.symmetric": "full"},
            {
                "up_bytes": 4 * (2 * 2 * 50 * LATENT + 2 * HEAD),
                "down_bytes": 4 * (2 * 50 * LATENT + 2 * HEAD),
                "bank_bytes": 4 * (1 + 1 + 1000) * HEAD,
            },
        ),
        (  # no gradient comes down, and no weights travel
            {"optimizer.client_lr": 0.0},
            {"up_bytes": 4 * 2 * 50 * LATENT, "down_bytes": 0, "bank_bytes": 4 * 3 * HEAD},
        ),
        (
            {"trainer.precision": "bf16"},
            {
                "up_bytes": 2 * 2 * 50 * LATENT + 4 * HEAD,
                "down_bytes": 2 * 50 * LATENT + 4 * HEAD,
            },
        ),
        (
            {"trainer.precision": "fp64"},
            {
                "up_bytes": 8 * (2 * 50 * LATENT + HEAD),
                "down_bytes": 8 * (50 * LATENT + HEAD),
                "bank_bytes": 8 * 2001 * HEAD,
            },
        ),
        ({"moco.symmetric": "none"}, {"keys_per_step": 100}),
        ({"clients.client_state": "stateless"}, {"bank_bytes": 4 * 3 * HEAD}),
        ({"optimizer.momentum": 0.0}, {"bank_bytes": 4 * 1002 * HEAD}),
        (
            {"clients.syncs_per_round": 3},  # a period of 16: after steps 15, 31, 47 and the last
            {
                "syncs_per_round": 4,
                "num_syncs": 8000,
                "up_bytes": 4 * (2 * 50 * LATENT + 4 * HEAD),
                "down_bytes": 4 * (50 * LATENT + 4 * HEAD),
            },
        ),
    ],
    ids=lambda value: " ".join(value),
)
def test_setting_changes_these_figures_alone(
    compose: Compose, values: dict[str, Any], changes: dict[str, int]
):
    published = make_plan(compose(CIFAR), FIFTY_EACH)
    plan = make_plan(changed(compose(CIFAR), values), FIFTY_EACH)
    assert plan == replace(published, **changes)


def test_bottleneck_shrinks_what_is_sent(compose: Compose):
    plan = make_plan(compose([*CIFAR, "split=cut2_c4s2"]), FIFTY_EACH)
    assert plan.smashed_shape == (4, 16, 16)
    head = HEAD + 2 * (64 * 64 * 9 + 2 * 64) + (64 * 4 * 9 + 4)  # a basic block, the pair's first
    assert plan.head_parameters == head
    assert plan.down_bytes == 4 * (50 * 4 * 16 * 16 + head)


def test_unequal_clients_set_the_mean_length_of_a_round(compose: Compose):
    counts = np.array([10, 20, 33])
    few = {"clients.num_clients": 3, "clients.batch_size": 2, "clients.num_rounds": 7}
    plan = make_plan(changed(compose([]), few), counts)
    assert plan.steps_per_round == 10
    assert plan.images_per_client == (10, 21.0, 33)
    assert plan.rows_per_step == 6
    assert plan.num_steps == 10 * 7


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"method.name": "monacosfl"},
        {"optimizer.client_lr": 0.0},
        {"optimizer.momentum": 0.0},
        {"clients.client_state": "stateless"},
        {"clients.participation": 1.0},
    ],
    ids=str,
)
def test_client_bank_is_as_large_as_planned_once_all_took_part(
    tiny_config: Config, values: dict[str, Any]
):
    six = {"clients.num_clients": 6, "clients.participation": 0.5}
    config = changed(tiny_config, {**six, **values})
    federation = build_federation(config)
    settings = config.optimizer
    optimizer = make_optimizer(
        federation,
        server_lr=settings.server_lr,
        client_lr=settings.client_lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    pool = pool_size(config)
    for start in (0, 3, 0):  # the first pool again, so that the second goes home
        if pool < 6:
            federation.clients.enter(torch.arange(start, start + 3), optimizer)
        views = torch.randn(2, pool, 1, 3, 16, 16, generator=torch.Generator().manual_seed(start))
        optimizer.zero_grad()
        federation.run(make_step((views[0], views[1]))).loss.backward()
        optimizer.step()
        federation.synchronise()
    plan = make_plan(config, np.full(6, 12))
    assert bank_bytes(federation.clients.bank) == plan.bank_bytes


def test_description_holds_the_figures_and_what_stops_early(compose: Compose):
    bottleneck = {"split.bottleneck_channels": 4, "split.bottleneck_stride": 2}
    config = changed(compose(CIFAR), {**bottleneck, "trainer.max_steps": 1500})
    text = describe_plan(config, make_plan(config, FIFTY_EACH))
    for part in (
        "resnet18, width 64, cut 1, bottleneck C4S2",
        "shards: 2 of 10 classes a client",
        "1,000, pool of 100 a round (bank)",
        "50 to 50, mean 50.0",
        "1 a client, 100 rows a step",
        "6,000 keys, 200 new a step",
        "2,000 of 50 steps = 100,000 steps, stopping after 1,500",
        "1 a round = 2,000 sync events",
        "4 x 16 x 16 an image",
    ):
        assert part in text
    text = describe_plan(compose(CIFAR), make_plan(compose(CIFAR), FIFTY_EACH))
    assert "stopping after" not in text


def test_whole_network_is_on_the_client(compose: Compose):
    config = compose(["dataset=cifar10", "clients=20", "method=fl_moco"])
    plan = make_plan(config, np.full(20, 2500))
    assert (plan.smashed_shape, plan.trunk_parameters) == (None, 0)
    assert plan.head_parameters == 11_176_512 - 9408 + 1728
    weights = 4 * (plan.head_parameters + plan.projector_parameters)
    assert plan.up_bytes == plan.down_bytes == plan.syncs_per_round * weights
    text = describe_plan(config, plan)
    assert "whole on each client" in text
    assert "smashed" not in text


def test_central_training_sends_nothing(compose: Compose):
    config = compose(["dataset=cifar10", "method=central_moco"])
    plan = make_plan(config, np.array([50_000]))
    assert (plan.num_steps, plan.up_bytes, plan.down_bytes) == (100_000, 0, 0)
    text = describe_plan(config, plan)
    assert "none, one machine holds all images" in text
    assert "syncs" not in text


def test_labels_need_a_classifier_and_no_queue(compose: Compose):
    config = compose(["dataset=cifar10", "clients=20", "method=sfl_supervised"])
    plan = make_plan(config, np.full(20, 2500))
    assert (plan.keys_per_step, plan.projector_parameters) == (0, 513 * 10)
    text = describe_plan(config, plan)
    assert "classifier 5,130" in text
    assert "queue" not in text


def test_local_epochs_lengthen_a_round(compose: Compose):
    config = changed(compose(["dataset=cifar10", "clients=20"]), {"method.local_epochs": 3})
    assert make_plan(config, np.full(20, 2500)).steps_per_round == 3 * 500


def test_rich_clients_bring_their_share_of_the_rows(compose: Compose):
    config = compose(["dataset=cifar10", "clients=100", "heterogeneity=rich_poor"])
    plan = make_plan(config, np.full(100, 500))
    assert plan.rows_per_step == 20 * 16 + 80 * 1
    assert plan.steps_per_round == 50_000 // 400
    assert "16 each of 20 rich, 1 each of 80 poor, 400 rows a step" in describe_plan(config, plan)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["partition=dirichlet"], "dirichlet: alpha 0.5, at least 1 images a client"),
        (["partition.kind=quantity_skew"], "quantity_skew: alpha 0.5, at least 1 images a client"),
        (["partition.kind=file", "partition.path=runs/a"], "file: as in runs/a"),
    ],
    ids=str,
)
def test_partition_is_described(compose: Compose, overrides: list[str], text: str):
    config = compose(["dataset=cifar10", *overrides])
    assert text in describe_plan(config, make_plan(config, np.full(100, 500)))


def test_plan_tells_who_is_remote(compose_quick: Compose) -> None:
    config = with_edge(compose_quick([]), num_remote=3, precision="int8")
    counts = np.full(100, 14)
    text = describe_plan(config, make_plan(config, counts))
    assert "3 remote clients, 97 simulated" in text
    assert "in the clear, smashed data in int8" in text
    assert "edge  " not in describe_plan(compose_quick([]), make_plan(compose_quick([]), counts))


def test_plan_tells_the_clients_of_each_process(compose: Compose):
    config = compose(["clients=5", "trainer.devices=2"])
    text = describe_plan(config, make_plan(config, np.full(5, 100)))
    assert "processes        2, each with 2 or 3 clients of the pool" in text
    config.trainer.devices = 1
    assert "processes" not in describe_plan(config, make_plan(config, np.full(5, 100)))
