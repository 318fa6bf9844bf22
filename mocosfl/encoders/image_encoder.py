"""A trained encoder to take away: pictures in, features out, its preprocessing inside.

Legend: B images, S pixels of their side, F features.
"""

from collections import OrderedDict
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from mocosfl.data.image_folder import blamed_on, decode_picture, fit_square, to_upright
from mocosfl.encoders.facts import EncoderFacts, facts_of
from mocosfl.encoders.safetensors_file import read_encoder_file
from mocosfl.models.normalisation import Normalisation
from mocosfl.runs.checkpoint import Encoder, find_checkpoint, read_encoder
from mocosfl.runs.chosen_checkpoint import EXPORTED

Picture = str | PathLike[str] | Image.Image | npt.NDArray[np.uint8]

# How far outside of [0, 1] values may lie: a sharpening filter overshoots, bytes and normalised
# images do so by far more.
_SLACK = 0.5


class ImageEncoder(nn.Module):
    """A frozen encoder: images (B, 3, S, S) in [0, 1] -> features (B, F).

    It follows `.to(device)` and `.to(dtype)`; the normalisation by the data set's mean and standard
    deviation is its first layer.
    """

    def __init__(self, network: nn.Sequential, facts: EncoderFacts) -> None:
        """Put the normalisation before a network.

        Args:
            network: head and trunk, normalised images to features.
            facts: what it is and was trained with.
        """
        super().__init__()
        head, trunk = network
        normalisation = Normalisation(facts.mean, facts.std)
        layers = OrderedDict(normalisation=normalisation, head=head, trunk=trunk)
        self.network = nn.Sequential(layers)
        self.facts = facts
        self.requires_grad_(False).eval()

    @property
    def num_features(self) -> int:
        """F, the length of a feature vector."""
        return self.facts.num_features

    @property
    def image_size(self) -> int:
        """S, height and width of the images, pixels."""
        return self.facts.image_size

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, of images scaled to [0, 1]."""
        return self.facts.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, of images scaled to [0, 1]."""
        return self.facts.std

    @property
    def backbone(self) -> str:
        """Name of the network, such as resnet18."""
        return self.facts.backbone

    @property
    def dataset(self) -> str:
        """Name of the data set it was trained on."""
        return self.facts.dataset

    @property
    def step(self) -> int:
        """Training steps behind it."""
        return self.facts.step

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of images.

        Args:
            images: (B, 3, S, S) float in [0, 1], RGB, B at least 1, on the encoder's device.

        Returns:
            (B, F), of the encoder's dtype.

        Raises:
            ValueError: images of another shape, type or range.
        """
        self._check(images)
        features: Tensor = self.network(images.to(self._layer.mean.dtype))
        return features

    def preprocess(self, pictures: Picture | Sequence[Picture]) -> Tensor:
        """Prepare pictures as the training images of an image folder are prepared.

        Decoded upright as RGB, the shorter side resized to S (antialiased), cropped to the centre.

        Args:
            pictures: a path, a PIL image, an array (H, W, 3) uint8, or a list of them.

        Returns:
            (B, 3, S, S) float32 in [0, 1] on the encoder's device; B is 1 for a picture alone.

        Raises:
            ValueError: no picture, one that can't be read, or an array of another kind.
        """
        alone = isinstance(pictures, str | PathLike | Image.Image | np.ndarray)
        listed: Sequence[Picture] = [pictures] if alone else pictures  # type: ignore[list-item, assignment]
        if len(listed) == 0:
            raise ValueError("pictures: none given, at least one expected")
        with blamed_on("pictures"):
            squares = [_square(picture, self.image_size) for picture in listed]
        return self.scaled(np.stack(squares))

    def scaled(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """Return squares (B, S, S, 3) uint8 as images (B, 3, S, S) float32 in [0, 1]."""
        images = torch.from_numpy(pixels).to(self._layer.mean.device).permute(0, 3, 1, 2)
        return (images.float() / 255.0).contiguous()

    @property
    def _layer(self) -> Normalisation:
        layer = self.network[0]
        assert isinstance(layer, Normalisation)
        return layer

    def _check(self, images: Tensor) -> None:
        size = self.image_size
        if not images.is_floating_point():
            raise ValueError(
                f"images: floats in [0, 1] expected, got {images.dtype}; divide bytes by 255, or "
                "let encoder.preprocess(pictures) prepare them"
            )
        if images.dim() != 4 or images.shape[1:] != (3, size, size) or len(images) == 0:
            raise ValueError(
                f"images: (B, 3, {size}, {size}) with B >= 1 expected, got {tuple(images.shape)}; "
                "encoder.preprocess(pictures) resizes and crops"
            )
        if torch.compiler.is_compiling():  # values are not known there
            return
        low, high = (float(value) for value in images.detach().aminmax())
        if not (low >= -_SLACK and high <= 1 + _SLACK):  # also where one is not a number
            raise ValueError(
                f"images: values in [0, 1] expected, got {low:.3g} to {high:.3g}; divide bytes by "
                "255, and don't normalise: the encoder does"
            )

    def extra_repr(self) -> str:
        """Return what the encoder is, for `print(encoder)`."""
        facts = self.facts
        return (
            f"{facts.backbone}, {facts.image_size} px to {facts.num_features} features, "
            f"{facts.method} on {facts.dataset}, {facts.step:,} steps"
        )


def load_encoder(path: str | PathLike[str], *, which: str = "last") -> ImageEncoder:
    """Load a trained encoder, on the CPU, frozen.

    Args:
        path: a run folder, a `.ckpt` file of one, or a `.safetensors` file that
            `python -m mocosfl.export encoder` has written.
        which: of a run folder: `last`, or `best` by the kNN monitor.

    Raises:
        FileNotFoundError: there is no such file, or the run has no checkpoint yet.
        ValueError: the file is not one of ours, or damaged, or `which` is something else.
    """
    file = find_checkpoint(Path(path), which)
    # Layers draw start values, which are then replaced: the caller's random numbers don't change.
    with torch.random.fork_rng(devices=[]):
        if file.suffix == EXPORTED:
            return ImageEncoder(*read_encoder_file(file))
        return image_encoder(read_encoder(file))


def image_encoder(encoder: Encoder) -> ImageEncoder:
    """Return a checkpoint's encoder as one that takes images in [0, 1]; they share weights."""
    assert isinstance(encoder.network, nn.Sequential)
    return ImageEncoder(encoder.network, facts_of(encoder))


def _square(picture: Picture, size: int) -> npt.NDArray[np.uint8]:
    """(size, size, 3) uint8 of a picture."""
    if isinstance(picture, str | PathLike):
        return decode_picture(Path(picture), size)
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"pictures: arrays (H, W, 3) uint8 expected, got {picture.shape} {picture.dtype}; "
                "a batch is given as a list, and floats go to the encoder itself"
            )
        picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        raise ValueError(
            "pictures: paths, PIL images or uint8 arrays expected, got a "
            f"{type(picture).__name__}; tensors in [0, 1] go to the encoder itself"
        )
    return fit_square(to_upright(picture), size)
