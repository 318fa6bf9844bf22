"""Rounds without traffic while the loss hardly falls.

    A   all traffic: the heads train
    B   uploads alone: clients still send smashed data, nothing goes back, the heads are frozen
    C   none: the server replays the smashed data of the last round in B, in a random order

A round follows on the one before it: when the mean loss fell by less than a threshold, one mode on
(A to B, B to C, C stays), else back to A. The first rounds are A.

Source: Li et al., MocoSFL, ICLR 2023 (communication saving by loss). Frozen heads keep both
copies, online and momentum. The replay shuffles steps and leaves each step's
rows together, so that clients with private queues keep theirs.
"""

import shutil
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mocosfl.federation.federation import Federation
from mocosfl.federation.server import SmashedStep
from mocosfl.federation.step_input import ClientGroup, Step
from mocosfl.system.files import replaced_file
from mocosfl.system.randomness import torch_generator


class Traffic(Enum):
    """What travels in a round."""

    all = "A"
    uploads = "B"
    none = "C"


def next_traffic(now: Traffic, *, fall: float, threshold: float) -> Traffic:
    """Return the mode of the round that follows.

    Args:
        now: the mode of the round that has ended.
        fall: by how much its mean loss is below that of the round before it, nats.
        threshold: a fall of at least so much keeps or brings back all traffic, nats.
    """
    if fall >= threshold:
        return Traffic.all
    return Traffic.uploads if now is Traffic.all else Traffic.none


class SmashedStore:
    """The smashed data of one round, a file a step.

    On disk and not in memory: at the published size a round takes gigabytes. The round that the
    last checkpoint speaks of is kept until another checkpoint speaks of a later one.
    """

    def __init__(self, folder: Path) -> None:
        """Keep the folder, which is made with the first step."""
        self.folder = folder

    def begin(self, round_index: int, *, keep: int | None) -> None:
        """Make room for a round; all others but `keep` are deleted."""
        kept = {self._round(number) for number in (round_index, keep) if number is not None}
        for old in self.folder.glob("round_*"):
            if old not in kept:
                shutil.rmtree(old)
        self._round(round_index).mkdir(parents=True, exist_ok=True)

    def write(self, round_index: int, step: int, smashed: SmashedStep) -> None:
        """Keep a step's data, without gradients.

        Raises:
            ValueError: they can't be written.
        """
        groups = [(group.places, group.batch_size) for group in smashed.groups]
        content = {
            "query": smashed.query.detach(),
            "key": smashed.key,
            "pool": smashed.pool,
            "groups": groups,
        }
        path = self._step(round_index, step)
        try:
            with replaced_file(path) as file:  # a checkpoint will count on it
                torch.save(content, file)
        except (OSError, RuntimeError) as error:  # torch.save turns a full disk into the latter
            raise ValueError(
                f"saving.enabled=true: a step's smashed data can't be written to {path.parent} "
                f"({error}); free space there, or use saving=off"
            ) from error

    def read(self, round_index: int, step: int, device: torch.device) -> SmashedStep:
        """Return what was kept."""
        content = torch.load(self._step(round_index, step), map_location=device, weights_only=True)
        groups = tuple(ClientGroup(places, size) for places, size in content["groups"])
        return SmashedStep(content["query"], content["key"], None, content["pool"], groups)

    def check(self, round_index: int, num_steps: int) -> None:
        """Check that the first steps of a round are there.

        Raises:
            FileNotFoundError: one is not.
        """
        for step in range(num_steps):
            if not self._step(round_index, step).is_file():
                raise FileNotFoundError(
                    f"resume: the smashed data of round {round_index}, which saving=by_loss "
                    f"replays, are not whole: {self._step(round_index, step)} is missing; put the "
                    "folder back, or start a fresh run"
                )

    def _round(self, round_index: int) -> Path:
        return self.folder / f"round_{round_index:06}"

    def _step(self, round_index: int, step: int) -> Path:
        return self._round(round_index) / f"step_{step:06}.pt"


class CommunicationSaving:
    """Decides each round's mode by the loss, and runs the clients' side of a step in it."""

    def __init__(
        self, store: SmashedStore, *, warmup_rounds: int, loss_threshold: float, seed: int
    ) -> None:
        """Keep the settings.

        Args:
            store: for the smashed data of rounds in B.
            warmup_rounds: rounds in A at the start, at least 2 for a fall to be known.
            loss_threshold: nats.
            seed: of the replay's order.
        """
        self.store, self.seed = store, seed
        self.warmup_rounds, self.loss_threshold = warmup_rounds, loss_threshold
        self.traffic = Traffic.all
        self.num_rounds = {mode.value: 0 for mode in Traffic}  # in each mode so far
        self._stored_round: int | None = None  # whose smashed data the store holds
        self._checkpointed_round: int | None = None  # the same, in the last checkpoint
        self._previous_loss: float | None = None
        self._loss_sum: Tensor | float = 0.0
        self._num_steps = 0

    def start_round(self, round_index: int) -> None:
        """Choose the mode of a round by the losses of the two before it."""
        if self._num_steps:
            # The only time that a round waits for the device.
            loss = float(self._loss_sum) / self._num_steps
            if self._previous_loss is not None and round_index >= self.warmup_rounds:
                self.traffic = next_traffic(
                    self.traffic, fall=self._previous_loss - loss, threshold=self.loss_threshold
                )
            self._previous_loss = loss
        self._loss_sum, self._num_steps = 0.0, 0
        self.num_rounds[self.traffic.value] += 1
        if self.traffic is Traffic.uploads:
            self.store.begin(round_index, keep=self._checkpointed_round)
            self._stored_round = round_index

    def check_store(self, num_steps: int) -> None:
        """Check, when a run goes on, that the smashed data it counts on are there.

        Args:
            num_steps: S, steps of a round.

        Raises:
            FileNotFoundError: some are not.
        """
        if self.traffic is not Traffic.all and self._stored_round is not None:
            stored = num_steps if self.traffic is Traffic.none else self._num_steps
            self.store.check(self._stored_round, stored)

    def smash(self, federation: Federation, step: Step, num_steps: int) -> SmashedStep:
        """Run the clients' side of a step as far as the round's mode has it.

        Args:
            federation: clients and server.
            step: of the round.
            num_steps: S, steps of a round.
        """
        if self.traffic is Traffic.all:
            return federation.smash(step)
        if self.traffic is Traffic.uploads:
            smashed = federation.smash_untrained(step)
            self.store.write(step.round, step.number, smashed)
            return smashed
        generator = torch_generator(self.seed, "replay", step.round)
        place = int(torch.randperm(num_steps, generator=generator)[step.number])
        assert self._stored_round is not None
        return self.store.read(self._stored_round, place, step.view1.device)

    def note(self, loss: Tensor) -> None:
        """Count the loss of a step, a scalar, towards the round's mean."""
        self._loss_sum = self._loss_sum + loss.detach()
        self._num_steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into the checkpoint that a run goes on from, and no other."""
        self._checkpointed_round = self._stored_round
        return {
            "traffic": self.traffic.value,
            "num_rounds": dict(self.num_rounds),
            "stored_round": self._stored_round,
            "previous_loss": self._previous_loss,
            "loss_sum": torch.as_tensor(self._loss_sum, dtype=torch.float64).cpu(),
            "num_steps": self._num_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore from the checkpoint."""
        self.traffic = Traffic(state["traffic"])
        self.num_rounds = dict(state["num_rounds"])
        self._stored_round = self._checkpointed_round = state["stored_round"]
        self._previous_loss = state["previous_loss"]
        self._loss_sum, self._num_steps = float(state["loss_sum"]), state["num_steps"]
