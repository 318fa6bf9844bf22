"""A run's data as Lightning's trainer wants them."""

import pytorch_lightning as pl

from mocosfl.data.federated_data import FederatedData
from mocosfl.data.loader import StepLoader
from mocosfl.federation.ranks import Ranks


class DataModule(pl.LightningDataModule):
    """Feeds the trainer with the steps of a run."""

    def __init__(self, data: FederatedData) -> None:
        """Keep the data.

        Args:
            data: of the run.
        """
        super().__init__()
        self.data = data

    def train_dataloader(self) -> StepLoader:
        """Return the loader of all steps, views made on the training device."""
        assert self.trainer is not None
        ranks = Ranks(self.trainer.global_rank, self.trainer.world_size)
        return self.data.step_loader(self.data.view_maker(self.trainer.strategy.root_device), ranks)
