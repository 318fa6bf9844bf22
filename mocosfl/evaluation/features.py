"""Features of a frozen encoder, computed once and kept.

Probes and kNN then work on a table of numbers and take seconds, where the published code
runs the frozen network again in every epoch of the probe.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mocosfl.data.cache import Images


def extract_features(
    encoder: nn.Module,
    images: Images,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device | str,
) -> Tensor:
    """Run the encoder in evaluation mode over all images, without augmentation.

    Args:
        encoder: on `device`; takes (B, 3, H, W) float32 and gives (B, D). Every module's training
            mode is as before afterwards.
        images: (N, H, W, 3) uint8, N at least 1; may be memory-mapped, or pictures on disk.
        mean: of each channel, images scaled to [0, 1].
        std: of each channel, > 0.
        batch_size: images a forward pass, at least 1.
        device: where the encoder runs.

    Returns:
        (N, D) float32 on the CPU, in the order of the images.

    Raises:
        ValueError: if images or features have another shape or type.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or len(images) == 0:
        raise ValueError(
            f"images: (N, H, W, 3) uint8 with N >= 1 expected, got {images.shape} {images.dtype}"
        )
    modes = [(module, module.training) for module in encoder.modules()]
    dtype = next((p.dtype for p in encoder.parameters()), torch.float32)
    encoder.eval()
    try:
        with torch.inference_mode():
            parts = [
                encoder(_normalised(batch, mean, std, device).to(dtype))
                for batch in _batches(images, batch_size)
            ]
            features = torch.cat([part.float().cpu() for part in parts])
    finally:
        for module, training in modes:
            module.training = training
    if features.dim() != 2:
        raise ValueError(f"encoder: features of shape (N, D) expected, got {tuple(features.shape)}")
    # Out of inference mode, so that a probe may keep it for its backward pass.
    return features.clone()


def _batches(images: Images, batch_size: int) -> Iterator[Images]:
    return (images[start : start + batch_size] for start in range(0, len(images), batch_size))


def _normalised(
    images: Images, mean: Sequence[float], std: Sequence[float], device: torch.device | str
) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 on the device."""
    # A copy: torch can't share a memory map opened for reading.
    batch = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2)
    centre = torch.tensor(mean, device=device)[:, None, None]
    scale = torch.tensor(std, device=device)[:, None, None]
    return ((batch.float() / 255.0 - centre) / scale).contiguous()
