"""Where real CIFAR-10 is, for the tests that need it."""

import os
from pathlib import Path

import pytest

DATA_DIR = Path(os.environ.get("MOCOSFL_DATA_DIR", "data"))
NEEDS_CIFAR10 = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (DATA_DIR / "cifar10" / "train_images.npy").is_file(),
        reason=f"real CIFAR-10 is not in {DATA_DIR}/cifar10 (set MOCOSFL_DATA_DIR)",
    ),
]
