"""The LightningModule of a federation with remote clients."""

import uuid
from typing import Any

from mocosfl.edge.server.networked_federation import NetworkedFederation
from mocosfl.federation.optimizer import CLIENTS
from mocosfl.federation.step_input import Step
from mocosfl.runs.checkpoint_content import EDGE, OPTIMIZERS
from mocosfl.training.module import MocoSFL
from mocosfl.training.step_record import Figures


class NetworkedMocoSFL(MocoSFL):
    """Trains a networked federation; a step is that of `MocoSFL` with the clients that answered."""

    federation: NetworkedFederation
    run = ""  # the run's name; what the clients keep is of it

    def on_train_start(self) -> None:
        """Open the streams, now that a checkpoint has said where the run stands."""
        super().on_train_start()
        if not self.run:
            self.run = uuid.uuid4().hex
        federation = self.federation
        federation.announce()
        remote_clients = federation.remote_clients
        remote_clients.begin(run=self.run, step=self.global_step, head_of=federation.head_of)
        remote_clients.open()

    def begin(self, batch: Step) -> Step:
        """Bring the round's pool in, and wait for the remote clients' smashed data."""
        super().begin(batch)
        rates = {group["name"]: group["lr"] for group in self._optimizer().param_groups}
        return self.federation.gather(
            batch, number=self.global_step, client_lr=rates.get(CLIENTS, 0.0)
        )

    def on_after_backward(self) -> None:
        """Send the remote clients their gradients."""
        self.federation.reply(sync_due=self.sync_due)

    def metrics(self) -> Figures:
        """Return what is logged of the last step, and of the streams."""
        return super().metrics() | self.federation.remote_clients.figures()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Have the clients keep their state first, so that both go on from the same step."""
        super().on_save_checkpoint(checkpoint)
        if OPTIMIZERS not in checkpoint:
            return
        remote_clients = self.federation.remote_clients
        remote_clients.keep(self.global_step)
        checkpoint[EDGE] = {
            "run": self.run,
            "head_step": self.federation.head_step,
            "ledger": remote_clients.ledger.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what the streams need."""
        super().on_load_checkpoint(checkpoint)
        edge = checkpoint[EDGE]
        self.run, self.federation.head_step = edge["run"], edge["head_step"]
        self.federation.remote_clients.ledger.load_state_dict(edge["ledger"])
