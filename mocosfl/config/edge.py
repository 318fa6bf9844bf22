"""The typed schema of `edge=`: what the networked server adds to a run; see `schema.py`."""

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class EdgeConfig:
    """`edge`: of `python -m mocosfl.edge.server`."""

    listen: str = MISSING  # HOST:PORT; 0.0.0.0:50061 for all of the machine's addresses
    certificates: str | None = MISSING  # folder with ca.pem, cert.pem, key.pem; null: plain text
    insecure: bool = MISSING  # allow plain text where other machines can connect
    num_remote: int | None = MISSING  # clients 0 .. num_remote - 1 are real; null: all are
    min_clients: int = MISSING  # remote answers of a step, of those planned, below: wait
    start_wait_seconds: float = MISSING  # for all remote clients, when the server starts
    step_deadline_seconds: float = MISSING  # of a step; late clients are skipped
    precision: str = MISSING  # of smashed data and gradients: fp32, fp16 or int8 (or fp64)
    max_refusals: int = MISSING  # messages of a client that are refused before it is disconnected
    keepalive_seconds: float = MISSING  # a silent connection is tested so often
    status_every_seconds: float = MISSING  # between two lines on the console


# What a server that is started again may do in another way.
FREE_EDGE_KEYS = tuple(
    f"edge.{name}"
    for name in (
        "listen",
        "certificates",
        "insecure",
        "min_clients",
        "start_wait_seconds",
        "step_deadline_seconds",
        "max_refusals",
        "keepalive_seconds",
        "status_every_seconds",
    )
)
