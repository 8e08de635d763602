"""Photometric distortion with the ranges of SSD."""

from __future__ import annotations

from random import Random

from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional

# Each is applied with probability 1/2, by a factor (hue: a shift of the colour circle) drawn from
# its range. The ranges are those of torchvision's RandomPhotometricDistort.
OPERATIONS = (
    (functional.adjust_brightness, 0.875, 1.125),
    (functional.adjust_contrast, 0.5, 1.5),
    (functional.adjust_saturation, 0.5, 1.5),
    (functional.adjust_hue, -0.05, 0.05),
)


def distorted(image: UInt8[Tensor, "3 H W"], rng: Random) -> UInt8[Tensor, "3 H W"]:
    """The image with another brightness, contrast, saturation and hue; `rng` decides how much."""
    for adjust, low, high in OPERATIONS:
        if rng.random() < 0.5:
            image = adjust(image, rng.uniform(low, high))
    return image
