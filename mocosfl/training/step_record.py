"""What a training step leaves for the callbacks."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from mocosfl.federation.averaging import Spread
from mocosfl.federation.saving import Traffic
from mocosfl.federation.server import ServerOutput
from mocosfl.privacy.attackers import Privacy

Figures = dict[str, Tensor | float]


class StepRecord(NamedTuple):
    """The last step; tensors stay on the device until somebody reads them."""

    output: ServerOutput  # over the rows of all processes
    num_images: int  # of all processes
    rates: Mapping[str, float]  # side -> its learning rate in this step
    supervised: bool = False  # whether the accuracy is that of labels
    traffic: Traffic | None = None  # of the round; None without `saving`
    privacy: Privacy | None = None  # None without attackers
    spread: Spread | None = None  # of the heads at the sync after the step; None without one

    def metrics(self) -> Figures:
        """Return what is logged of the step, by name; a networked run adds its streams' figures."""
        accuracy = "train/accuracy" if self.supervised else "train/contrast_accuracy"
        values: Figures = {
            "train/loss": self.output.loss,
            accuracy: self.output.accuracy,
            "train/embedding_std": self.output.embedding_std,
        }
        if self.privacy is not None:
            values["privacy/attacker_ssim"] = self.privacy.attacker_ssim
            values["privacy/penalty"] = self.privacy.penalty
        if self.traffic is not None:
            values["train/traffic"] = list(Traffic).index(self.traffic)  # 0 A, 1 B, 2 C
        return values | {f"lr/{side}": rate for side, rate in self.rates.items()}

    def divergence(self) -> dict[str, Tensor]:
        """Return how far the heads were apart at the sync after the step; {} without one."""
        if self.spread is None:
            return {}
        return {f"sync/divergence_{name}": v for name, v in self.spread._asdict().items()}
