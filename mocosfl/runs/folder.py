"""What a run leaves on disk, and where."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from mocosfl.config.choices import PARTITION_FILE
from mocosfl.config.identity import (
    CONFIG_FILE,
    check_run_folder,
    recorded_config,
    unreadable_config,
)
from mocosfl.config.schema import Config
from mocosfl.system.files import write_atomically

WHICH = ("last", "best")  # checkpoints of a run, as a user names them
_ATTACKER_PICTURE = "reconstructions_round"  # then the round's number


def of_best(name: str) -> str:
    """Return the name of what is found out about the best checkpoint, beside that of the last."""
    return f"{name}_best"


class FolderBusy(ValueError):
    """Another process is running in the folder."""


@dataclass(frozen=True)
class RunFolder:
    """Paths in a run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The whole configuration, resolved."""
        return self.path / CONFIG_FILE

    @property
    def plan(self) -> Path:
        """What was printed before training."""
        return self.path / "plan.txt"

    @property
    def plan_figures(self) -> Path:
        """The figures of the plan, and `steps_to_do`."""
        return self.path / "plan.json"

    @property
    def metrics(self) -> Path:
        """The curves."""
        return self.path / "metrics.csv"

    @property
    def partition(self) -> Path:
        """Which images each client holds."""
        return self.path / PARTITION_FILE

    @property
    def finished(self) -> Path:
        """Written when all is done: {"step", "seconds"}, of the process that came to the end."""
        return self.path / "finished.json"

    @property
    def failed(self) -> Path:
        """Why a sweep's job has failed, until it is started again."""
        return self.path / "failed.txt"

    @property
    def collapses(self) -> Path:
        """The collapses that the run has gone back from; not there without one."""
        return self.path / "collapses.json"

    @property
    def wandb_id(self) -> Path:
        """The run's id with W&B, so that a resumed run continues its curves."""
        return self.path / "wandb_id.txt"

    @property
    def wandb_place(self) -> Path:
        """Where W&B keeps an online run: {"entity", "project"}; not there of an offline one."""
        return self.path / "wandb_place.json"

    @property
    def pictures(self) -> Path:
        """Folder of the pictures."""
        return self.path / "pictures"

    @property
    def partition_picture(self) -> Path:
        """Who holds what; not there without pictures."""
        return self.pictures / "partition.png"

    @property
    def views_picture(self) -> Path:
        """Images and their views; not there without pictures."""
        return self.pictures / "views.png"

    def attacker_picture(self, round_number: int) -> Path:
        """Return the picture of what the simulated attackers see after a round, counted from 1."""
        return self.pictures / f"{_ATTACKER_PICTURE}{round_number:04d}.png"

    @property
    def attacker_pictures(self) -> dict[int, Path]:
        """Round -> picture, of those that are there, in order."""
        found = self.pictures.glob(f"{_ATTACKER_PICTURE}*.png")
        rounds = [(p.stem.removeprefix(_ATTACKER_PICTURE), p) for p in found]
        # A copy beside them may be called "... (1).png".
        return dict(sorted((int(number), p) for number, p in rounds if number.isdecimal()))

    @property
    def smashed(self) -> Path:
        """Folder of a round's smashed data, where `saving=by_loss` replays them."""
        return self.path / "smashed"

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best kNN monitor, weights only."""
        return self.path / "checkpoints" / "best.ckpt"

    def checkpoint(self, which: str) -> Path:
        """Return the file of a checkpoint, one of `WHICH`."""
        return {"last": self.last, "best": self.best}[which]

    @property
    def overhead(self) -> Path:
        """Bytes, MACs and memory of a client, written at the end."""
        return self.path / "overhead.json"

    @property
    def profile(self) -> Path:
        """Folder of what `trainer.profiler` found."""
        return self.path / "profile"

    @property
    def edge(self) -> Path:
        """Bytes of each remote client as they travelled, written at the end."""
        return self.path / "edge.json"

    @property
    def probe(self) -> Path:
        """Folder of what the probes of the last checkpoint found."""
        return self.path / "probe"

    @property
    def probe_best(self) -> Path:
        """Folder of what the probes of the best checkpoint found."""
        return self.path / of_best("probe")

    @property
    def probe_untrained(self) -> Path:
        """Folder of what the probes of the network before training found."""
        return self.path / "probe_untrained"

    @property
    def attack(self) -> Path:
        """Folder of what the attack on the last checkpoint's head found."""
        return self.path / "attack"

    @property
    def attack_best(self) -> Path:
        """Folder of what the attack on the best checkpoint's head found."""
        return self.path / of_best("attack")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from running in this folder.

        Raises:
            FolderBusy: one does. The lock ends with its process, however that ends.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise FolderBusy(
                    f"run_dir={self.path}: another process is running in this folder; wait for "
                    "it, or choose another folder"
                ) from error
            yield

    def save_config(self, config: Config) -> None:
        """Write the resolved configuration."""
        write_atomically(self.config, OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True))

    def load_config(self) -> Config:
        """Read the configuration of the run.

        Raises:
            FileNotFoundError: the folder is not that of a run.
            ValueError: its config.yaml is not readable, or that of another version.
        """
        check_run_folder(self.path, "run")
        source, way_out = str(self.config), "put it back as it was"
        try:
            values = OmegaConf.load(self.config)
        except (OmegaConfBaseException, YAMLError) as error:
            raise unreadable_config(source, str(error), way_out) from error
        return recorded_config(values, source, f"{way_out}, or use the version that wrote it")
