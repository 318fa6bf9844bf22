"""Settings of views, the published ones and some of which the result is known; draws of them."""

from dataclasses import replace

import torch

from mocosfl.data.augmentation import (
    ViewParameters,
    ViewSettings,
    draw_uniforms,
    parameters_from_uniforms,
)

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
SETTINGS = ViewSettings(
    crop_scale_min=0.08,
    crop_scale_max=1.0,
    ratio_min=3 / 4,
    ratio_max=4 / 3,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    jitter_probability=0.8,
    grey_probability=0.2,
    blur_probability=0.5,
    blur_sigma_min=0.1,
    blur_sigma_max=2.0,
    flip_probability=0.5,
)
STILL = replace(
    SETTINGS,
    crop_scale_min=1.0,
    ratio_min=1.0,
    ratio_max=1.0,
    jitter_probability=0.0,
    grey_probability=0.0,
    blur_probability=0.0,
    flip_probability=0.0,
)
RANDOM = replace(SETTINGS, crop_scale_min=0.2, ratio_max=1.33)
# Views that are the whole image, unchanged.
IDENTITY = ViewSettings(
    crop_scale_min=1.0,
    crop_scale_max=1.0,
    ratio_min=1.0,
    ratio_max=1.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    jitter_probability=0.0,
    grey_probability=0.0,
    blur_probability=0.0,
    blur_sigma_min=0.1,
    blur_sigma_max=2.0,
    flip_probability=0.0,
)


def draw_views(
    settings: ViewSettings, generator: torch.Generator, *, num_images: int, source_size: int
) -> ViewParameters:
    """Draw the parameters of one view of each image, whose sides have `source_size` pixels."""
    uniforms = draw_uniforms(generator, num_images)
    return parameters_from_uniforms(settings, uniforms, source_size=source_size)
