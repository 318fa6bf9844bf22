"""The packages of a device whose client has an exported head: no torch."""

from pathlib import Path

import numpy as np

import mocosfl

# What a client with an exported head has installed, and what those packages need.
ON_DEVICE = ["numpy", "numpy.libs", "PIL", "pillow.libs", "google/protobuf", "google/_upb", "grpc"]
ON_DEVICE += ["typing_extensions.py", "onnxruntime"]


def device_path(folder: Path) -> str:
    """Fill a folder with links to what a device has; returns a path for Python, of it and ours."""
    installed = Path(np.__file__).parents[1]
    for name in ON_DEVICE:
        if (installed / name).exists():  # wheels differ in where their libraries lie
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(installed / name)
    return f"{folder}:{Path(mocosfl.__file__).parents[1]}"
