"""A federation behind mutual TLS trains over a slow link that loses packets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.edge_run import Places, run_networked
from mocosfl.edge.certificates import make_certificates
from tests.support.shaped_link import ADDRESSES, ShapedLink, Shaping, why_not

NUM_CLIENTS = 2
NUM_STEPS = 10
BATCH = 16
SMASHED_BYTES = BATCH * 4 * 8 * 8 * 4  # rows, (c, h, w), fp32
PACKET_OVERHEAD = 40  # bytes of the IP and TCP headers, at least


@pytest.fixture(scope="module")
def link() -> Iterator[ShapedLink]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with ShapedLink(Shaping()) as made:
        yield made


@pytest.mark.slow
def test_steps_over_a_slow_lossy_link_are_all_there_with_the_predicted_bytes(
    link: ShapedLink, data_dir: Path, tmp_path: Path
) -> None:
    certificates = tmp_path / "certificates"
    make_certificates(certificates, num_clients=NUM_CLIENTS, server_names=[ADDRESSES[0]], days=1)
    places = Places(
        f"{link.near.address}:50061",
        server=tuple(link.near.prefix),
        clients=tuple(link.far.prefix),
        certificates=certificates,
    )
    overrides = [
        f"data_dir={data_dir}",
        "dataset=digits",
        f"clients.num_clients={NUM_CLIENTS}",
        "clients.participation=1",
        f"clients.batch_size={BATCH}",
        "clients.syncs_per_round=10",
        "clients.num_rounds=1",
        "split=cut1_c4s2",
        "backbone.width=4",
        "moco.queue_length=64",
        "moco.projector_hidden=16",
        "moco.projector_dim=8",
        "trainer.accelerator=cpu",
        f"trainer.max_steps={NUM_STEPS}",
        "trainer.log_every_steps=1",
        "trainer.num_threads=1",
        "trainer.progress_bar=false",
        "callbacks.pictures=false",
        "callbacks.measure_client_memory=false",
        "logger=csv",
    ]

    result = run_networked(overrides, tmp_path / "run", places, num_processes=NUM_CLIENTS)

    server, seen = result["server"], link.far.counters()
    assert server["steps"] == NUM_CLIENTS * NUM_STEPS
    assert server["late_steps"] == server["lost"] == server["refusals"] == 0
    assert server["smashed_up"] == 2 * NUM_CLIENTS * NUM_STEPS * SMASHED_BYTES
    assert server["smashed_up"] + server["weights_up"] == server["predicted_up"]
    assert server["gradients_down"] + server["weights_down"] == server["predicted_down"]
    # Nothing of it went another way than over the link.
    assert seen.sent_bytes > server["up"] + PACKET_OVERHEAD * seen.sent_packets
    assert seen.received_bytes > server["down"] + PACKET_OVERHEAD * seen.received_packets
    # A step is a question and its answer, and the gradient with the next question behind it.
    round_trip = 2 * link.shaping.delay_seconds
    assert result["steps_per_second"] < 1 / round_trip
