"""Training on a golden trace with the classes that train, through Lightning."""

import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from mocosfl.federation.client_pool import ClientPool
from mocosfl.federation.federation import Federation
from mocosfl.federation.optimizer import OptimizerSettings
from mocosfl.federation.queue import KeyQueue
from mocosfl.federation.server import Server, ServerOutput, SmashedStep
from mocosfl.federation.step_input import ClientGroup, Step
from mocosfl.training.module import MocoSFL
from tests.support.golden_traces import (
    Trace,
    build_models,
    initial_queues,
    over_steps,
    queue_figures,
    step_figures,
    tensor_figures,
    views,
)


def build_federation(trace: Trace) -> Federation:
    """Put the training classes together from a trace's configuration and initial values."""
    config = trace["config"]
    models = build_models(trace)
    columns = torch.stack(initial_queues(trace))  # (Q, D, L)
    queue = KeyQueue(
        len(columns), columns.shape[2], dim=config["dim"], generator=torch.Generator()
    ).double()
    queue.keys.copy_(columns.transpose(1, 2))
    clients = ClientPool(
        models.head,
        num_clients=config["clients"],
        pool_size=len(config["pools"][0]),
        momentum=0.99,
        stateless=False,
        frozen=config["client_lr"] == 0,
    )
    server = Server(
        models.trunk,
        models.projector,
        queue,
        temperature=config["T"],
        momentum=0.99,
        two_sided=config["symmetric"] == "server",
    )
    return Federation(
        clients,
        server,
        both_views=config["symmetric"] == "full",
        align_momentum=config["sync_momentum"],
    )


def steps(trace: Trace) -> list[Step]:
    """Return the trace's steps as the data loader would give them."""
    config = trace["config"]
    return [
        Step(
            x1.flatten(0, 1),
            x2.flatten(0, 1),
            None,
            torch.tensor(pool),
            (ClientGroup(torch.arange(len(pool)), x1.shape[1]),),
            round=0,
            number=number - 1,
            new_round=True,
            sync_due=number in config["sync_after"],
        )
        for number, (pool, x1, x2) in enumerate(zip(config["pools"], *views(trace), strict=True), 1)
    ]


class Recorder(pl.Callback):
    """Notes the figures of each step as they pass."""

    def __init__(self, federation: Federation) -> None:
        self.steps: list[dict[str, float]] = []
        self._learn = federation.learn
        federation.learn = self._watch  # type: ignore[method-assign]

    def _watch(self, step: SmashedStep) -> ServerOutput:
        assert step.key is not None
        self.query, self.key = step.query, step.key
        # Frozen heads send no gradient; the trace gives it all the same.
        _ = self.query.retain_grad() if self.query.requires_grad else self.query.requires_grad_()
        return self._learn(step)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        output = pl_module.record.output
        assert self.query.grad is not None
        self.steps.append(
            step_figures(
                loss=output.loss.item(),
                contrast_accuracy=output.accuracy.item(),
                query=self.query,
                key=self.key,
                grad=self.query.grad,
            )
        )


def rates(trace: Trace) -> OptimizerSettings:
    """Return the optimizer of a trace."""
    config = trace["config"]
    return OptimizerSettings(
        server_lr=config["lr"],
        client_lr=config["client_lr"],
        momentum=0.9,
        weight_decay=5e-4,
        schedule="constant",
        client_schedule="rounds",
        step_decay_server=1.0,
        step_decay_client=1.0,
    )


def train(module: MocoSFL, recorder: Recorder, traced: list[Step], folder: Path) -> None:
    """Train on steps in float64, watched by a recorder."""
    trainer = pl.Trainer(
        accelerator="cpu",
        precision="64-true",
        max_epochs=1,
        logger=False,
        callbacks=[recorder],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    with warnings.catch_warnings():
        # Steps that are in memory need no workers.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        trainer.fit(module, DataLoader(traced, batch_size=None, collate_fn=lambda s: s))


def replay(trace: Trace, folder: Path) -> dict[str, Any]:
    """Train on a trace's steps and return the figures it expects."""
    config = trace["config"]
    federation = build_federation(trace)
    module = MocoSFL(federation, rates(trace), num_rounds=1, steps_per_round=1, config={})
    recorder = Recorder(federation)
    train(module, recorder, steps(trace), folder)
    optimizer = module.optimizers().optimizer  # type: ignore[union-attr]
    states = [
        federation.clients.client_state(client, optimizer) for client in range(config["clients"])
    ]
    server = federation.server
    return {
        **over_steps(recorder.steps),
        **queue_figures(list(server.queue.keys.transpose(1, 2)), server.queue.pointers.tolist()),
        "final_client_online": [tensor_figures(state["online"]) for state in states],
        "final_client_momentum": [tensor_figures(state["momentum"]) for state in states],
        "final_server_online": tensor_figures(
            server.trunk.state_dict(), server.projector.state_dict()
        ),
        "final_server_momentum": tensor_figures(
            server.momentum_trunk.state_dict(), server.momentum_projector.state_dict()
        ),
    }
