"""The views as pipelines on Pillow images make them: image by image, with torchvision."""

import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import v2

from mocosfl.data.augmentation import ViewSettings


class PillowBlur(torch.nn.Module):
    """Pillow's own Gaussian blur; torchvision's would turn the picture into a tensor and back."""

    def __init__(self, sigma_min: float, sigma_max: float) -> None:
        """Keep the range of sigma, pixels."""
        super().__init__()
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def forward(self, picture: Image.Image) -> Image.Image:
        """Blur a picture."""
        sigma = torch.empty(1).uniform_(self.sigma_min, self.sigma_max).item()
        return picture.filter(ImageFilter.GaussianBlur(sigma))


def pil_pipeline(
    settings: ViewSettings, *, image_size: int, mean: list[float], std: list[float]
) -> v2.Compose:
    """Return Pillow picture -> normalised view (3, O, O)."""
    blur = PillowBlur(settings.blur_sigma_min, settings.blur_sigma_max)
    return _pipeline(settings, blur, v2.ToImage(), image_size=image_size, mean=mean, std=std)


def tensor_pipeline(
    settings: ViewSettings, *, image_size: int, mean: list[float], std: list[float]
) -> v2.Compose:
    """Return image (3, H, W) uint8 -> normalised view (3, O, O)."""
    kernel_size = 1 + 2 * round(image_size / 20)  # a tenth of the side, SimCLR's rule
    sigmas = (settings.blur_sigma_min, settings.blur_sigma_max)
    blur = v2.GaussianBlur(kernel_size, sigmas)
    return _pipeline(settings, blur, v2.Identity(), image_size=image_size, mean=mean, std=std)


def _pipeline(
    settings: ViewSettings,
    blur: torch.nn.Module,
    to_tensor: torch.nn.Module,
    *,
    image_size: int,
    mean: list[float],
    std: list[float],
) -> v2.Compose:
    jitter = v2.ColorJitter(
        settings.brightness, settings.contrast, settings.saturation, settings.hue
    )
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                image_size,
                scale=(settings.crop_scale_min, settings.crop_scale_max),
                ratio=(settings.ratio_min, settings.ratio_max),
            ),
            v2.RandomApply([jitter], settings.jitter_probability),
            v2.RandomGrayscale(settings.grey_probability),
            v2.RandomApply([blur], settings.blur_probability),
            v2.RandomHorizontalFlip(settings.flip_probability),
            to_tensor,
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )


def view_of(pipeline: v2.Compose, picture: Image.Image | Tensor) -> Tensor:
    """Return one view (3, O, O) of a picture."""
    view: Tensor = pipeline(picture)
    return view
