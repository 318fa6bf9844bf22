"""What the log leaves out."""

import logging
import warnings


def setup_logging() -> None:
    """Quiet what the user cannot act on."""
    # Lightning's lines about devices and tips; our plan says what is used.
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.accelerators.cuda").setLevel(logging.WARNING)
    # Nor of how several processes meet.
    logging.getLogger("lightning_fabric.utilities.distributed").setLevel(logging.WARNING)
    # Steps come from memory; loader workers would not help.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # A short run has fewer steps than the logging interval; that is the user's choice.
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    # Lightning's own use of a deprecated part of torch.
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
