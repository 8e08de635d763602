"""The augmentation of the DETR family, at any image size, on uint8 tensors.

DETR's policy for short sides of 800 pixels (`image_size` s scales every number below by s / 800):
flip with probability 1/2; then, with probability 1/2 each, resize the short side to one of 480,
512, … 800, the long one to at most 1333; or resize the short side to 400, 500 or 600, cut out a
window of 384 to 600 pixels each way, and resize that like the former.

`strong` is for long trainings on few images. It resizes the short side to 1/4 to 2 times
`image_size` (large-scale jitter), cuts out a window of at most the size that the image has in
evaluation, and changes the colours. The data set makes mosaics before.

What is to be done is drawn first, as a `Plan`, and then done: the plan is cheap to test and to hand
to another implementation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional

from od_detr.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from od_detr.data.strong.photometric import distorted
from od_detr.errors import InputError

# Of an image this much longer than its short side, only so much is resized before the crop: nothing
# ordinary is, and a picture of 1 x 20000 pixels would become one of 400 x 8000000.
LONGEST_BEFORE_CROP = 8
JITTER = (0.25, 2.0)  # short side of an image as a share of `image_size`, before the crop
SMALLEST = 32  # pixels of a jittered short side
# A box that merely touches the window keeps a sliver of this relative size by rounding.
SLIVER = 1e-6


@dataclass(frozen=True)
class Sample:
    """One image and its objects.

    `boxes` are normalised (cx, cy, w, h), `size` is the file's (height, width).
    """

    image: UInt8[Tensor, "3 H W"]
    boxes: Float[Tensor, "N 4"]
    labels: Int[Tensor, " N"]
    image_id: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """What happens to one image, in this order; sizes are (height, width) in pixels.

    `crop` is the window (top, left, height, width) in the image resized to `before_crop`.
    """

    flip: bool
    size: tuple[int, int]
    before_crop: tuple[int, int] | None = None
    crop: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Transform:
    """From a decoded sample to one of the detector's input size.

    Attributes:
        image_size: length of the short side, in pixels; 800 is the paper's.
        augment: `detr` and `strong` are the policies above, `flip` only flips, `none` is the
            deterministic transform of evaluation; the latter two resize the short side to
            `image_size`, the long one to at most 5/3 of it.
    """

    image_size: int = 800
    augment: Literal["none", "flip", "detr", "strong"] = "none"

    def __post_init__(self) -> None:
        if self.image_size < 16:
            raise InputError(
                f"image size {self.image_size} is too small to detect anything; give at least 16"
            )
        if self.augment not in ("none", "flip", "detr", "strong"):
            raise InputError(
                f"augment {self.augment!r} is unknown; give none, flip, detr or strong"
            )

    def __call__(self, sample: Sample, rng: Random) -> Sample:
        """Transforms a sample; `rng` decides what is random."""
        height, width = sample.image.shape[1:]
        plan = self.plan(height, width, rng)
        boxes, kept = apply_to_boxes(plan, sample.boxes)
        image = apply_to_image(plan, sample.image)
        if self.augment == "strong":
            image = distorted(image, rng)
        return replace(sample, image=image, boxes=boxes, labels=sample.labels[kept])

    def plan(self, height: int, width: int, rng: Random) -> Plan:
        """Draws what to do with an image of this size."""
        flip = self.augment != "none" and rng.random() < 0.5
        if self.augment in ("none", "flip"):
            return Plan(flip, self.usual_size(height, width))
        if self.augment == "strong":
            return self.jittered(height, width, flip, rng)
        short = self.scaled(rng.choice(range(480, 801, 32)))
        if rng.random() < 0.5:
            return Plan(flip, fitted(height, width, short, self.longest))
        before = self.scaled(rng.choice((400, 500, 600)))
        before_crop = fitted(height, width, before, LONGEST_BEFORE_CROP * self.image_size)
        tall, wide = (self.window(side, rng) for side in before_crop)
        top, left = rng.randint(0, before_crop[0] - tall), rng.randint(0, before_crop[1] - wide)
        return Plan(
            flip, fitted(tall, wide, short, self.longest), before_crop, (top, left, tall, wide)
        )

    @property
    def longest(self) -> int:
        """The most pixels that the long side of an image has afterwards."""
        return self.scaled(1333)

    def usual_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that an image of this size has in evaluation."""
        return fitted(height, width, self.image_size, self.longest)

    def jittered(self, height: int, width: int, flip: bool, rng: Random) -> Plan:
        """Another scale, and what of the image fits into the size that it has in evaluation."""
        short = max(SMALLEST, round(self.image_size * rng.uniform(*JITTER)))
        resized = fitted(height, width, short, LONGEST_BEFORE_CROP * self.image_size)
        usual = self.usual_size(height, width)
        tall, wide = (min(sides) for sides in zip(resized, usual, strict=True))
        top, left = rng.randint(0, resized[0] - tall), rng.randint(0, resized[1] - wide)
        return Plan(flip, (tall, wide), resized, (top, left, tall, wide))

    def window(self, side: int, rng: Random) -> int:
        """Length of the crop along a side of this length."""
        return rng.randint(min(self.scaled(384), side), min(self.scaled(600), side))

    def scaled(self, pixels: int) -> int:
        """A length of DETR's policy at this image size."""
        return round(pixels * self.image_size / 800)


def fitted(height: int, width: int, short: int, longest: int) -> tuple[int, int]:
    """The size with its short side `short`, or less where the long one would exceed `longest`."""
    low, high = min(height, width), max(height, width)
    if high * short > longest * low:
        short = max(1, round(longest * low / high))
    long = min(longest, int(short * high / low))
    return (short, long) if height <= width else (long, short)


def apply_to_image(plan: Plan, image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 h w"]:
    """Flips, crops and resizes pixels, bilinearly with antialiasing, as Pillow does."""
    if plan.flip:
        image = image.flip(-1)
    if plan.before_crop is not None and plan.crop is not None:
        top, left, height, width = plan.crop
        image = functional.resize(image, list(plan.before_crop), antialias=True)
        window = image.permute(1, 2, 0)[top : top + height, left : left + width]
        image = window.contiguous().permute(2, 0, 1)
    return functional.resize(image, list(plan.size), antialias=True)


def apply_to_boxes(
    plan: Plan, boxes: Float[Tensor, "N 4"]
) -> tuple[Float[Tensor, "M 4"], Bool[Tensor, " N"]]:
    """Boxes after the plan, clipped to the window, and which of them have any area left in it.

    Normalised boxes do not feel a resize, so only the flip and the window matter.
    """
    if plan.flip:
        boxes = torch.cat([1 - boxes[:, :1], boxes[:, 1:]], 1)
    if plan.before_crop is None or plan.crop is None:
        return boxes, torch.ones(len(boxes), dtype=torch.bool)
    top, left, height, width = plan.crop
    rows, columns = plan.before_crop
    origin = boxes.new_tensor([left / columns, top / rows]).repeat(2)
    extent = boxes.new_tensor([width / columns, height / rows]).repeat(2)
    inside = ((cxcywh_to_xyxy(boxes) - origin) / extent).clamp(0, 1)
    kept = (inside[:, 2:] - inside[:, :2] > SLIVER).all(1)
    return xyxy_to_cxcywh(inside[kept]), kept
