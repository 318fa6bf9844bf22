"""Features: evaluation mode, order, normalisation, and nothing changed in the encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mocosfl.evaluation.features import extract_features

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


class _Encoder(nn.Module):
    """Batch-dependent in training mode, random too: wrong modes show."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.5)
        self.frozen = nn.BatchNorm1d(3).eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.frozen(self.dropout(self.norm(images)).mean(dim=(2, 3)))


def _images(num_images: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(num_images, 6, 5, 3), dtype=np.uint8)


def _extract(encoder: nn.Module, images: np.ndarray, *, batch_size: int = 3) -> Tensor:
    return extract_features(
        encoder, images, mean=MEAN, std=STD, batch_size=batch_size, device="cpu"
    )


def test_features_are_those_of_the_normalised_image() -> None:
    images = _images()
    features = _extract(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), images)
    expected = ((images / 255.0).mean(axis=(1, 2)) - MEAN) / STD
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-5)
    assert features.dtype == torch.float32


def test_features_do_not_depend_on_the_batch_size() -> None:
    encoder, images = _Encoder(), _images()
    whole = _extract(encoder, images, batch_size=100)
    torch.testing.assert_close(_extract(encoder, images, batch_size=1), whole)
    torch.testing.assert_close(_extract(encoder, images, batch_size=3), whole)


def test_encoder_keeps_state_and_the_mode_of_each_module() -> None:
    encoder = _Encoder()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    _extract(encoder, _images())
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert encoder.training and encoder.norm.training and not encoder.frozen.training


def test_modes_come_back_when_the_encoder_fails() -> None:
    encoder = nn.Sequential(nn.Dropout(), nn.Linear(99, 1))
    with pytest.raises(RuntimeError):
        _extract(encoder, _images())
    assert encoder.training and encoder[0].training


def test_read_only_memory_map_is_accepted(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", _images())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert torch.equal(_extract(_Encoder(), mapped), _extract(_Encoder(), _images()))


def test_a_layer_can_be_trained_on_the_features() -> None:
    loss = nn.Linear(3, 2)(_extract(_Encoder(), _images())).sum()
    loss.backward()  # tensors of inference mode would refuse


def test_wrong_images_or_features_are_refused() -> None:
    for images in (_images().astype(np.float32), _images()[0], _images()[:0], _images()[..., :1]):
        with pytest.raises(ValueError, match=r"images: \(N, H, W, 3\) uint8"):
            _extract(_Encoder(), images)
    with pytest.raises(ValueError, match="encoder: features of shape"):
        _extract(nn.Identity(), _images())
