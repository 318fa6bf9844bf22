"""VGG-11/13/16/19 with GroupNorm and weight-standardised convolutions (with bias).

Source: Simonyan and Zisserman 2015, "Very deep convolutional networks", table 1 (A, B, D, E),
without the fully connected layers. `width` is the first entry's channels (64 published).
"""

from torch import nn

from mocosfl.models.backbone import Backbone, Unit
from mocosfl.models.layers import ConvNormReLU

# Convolutions in each of the five stages; a 2x2 max-pool ends each stage and is a unit of its own.
STAGE_CONVS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
STAGE_WIDTHS = (1, 2, 4, 8, 8)


def vgg(name: str, *, width: int) -> Backbone:
    """Build a VGG as units: each convolution (with norm and ReLU) and each max-pool.

    Args:
        name: a key of `STAGE_CONVS`.
        width: channels of the first stage; 64 in the papers, a multiple of 4.
    """
    units: list[Unit] = []
    in_channels, number = 3, 0
    for stage, num_convs in enumerate(STAGE_CONVS[name]):
        channels = width * STAGE_WIDTHS[stage]
        for _ in range(num_convs):
            module = ConvNormReLU(in_channels, channels, bias=True)
            units.append(Unit(f"convs.{number}", module, channels))
            in_channels, number = channels, number + 1
        units.append(Unit(f"pools.{stage}", nn.MaxPool2d(2), channels))
    return Backbone(units, expansion=1)
