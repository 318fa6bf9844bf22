"""What a probe and an attack leave in a folder, of a run or another."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProbeFolder:
    """Paths in the folder of a probe."""

    path: Path

    @property
    def results(self) -> Path:
        """The accuracies and what they are of."""
        return self.path / "results.json"

    @property
    def metrics(self) -> Path:
        """A curve a probe, over its epochs."""
        return self.path / "metrics.csv"

    @property
    def per_class(self) -> Path:
        """Picture of the accuracy of each class."""
        return self.path / "per_class.png"

    @property
    def embedding_map(self) -> Path:
        """Picture of the map; not there without one."""
        return self.path / "embedding_map.png"

    @property
    def embedding_map_table(self) -> Path:
        """Which image lies where on the map; not there without one."""
        return self.path / "embedding_map.csv"


@dataclass(frozen=True)
class AttackFolder:
    """Paths in the folder of an attack."""

    path: Path

    @property
    def results(self) -> Path:
        """How well each attack reconstructs, and what was attacked."""
        return self.path / "attack.json"

    @property
    def reconstructions(self) -> Path:
        """Picture of attacked images above what each attack makes of them."""
        return self.path / "reconstructions.png"
