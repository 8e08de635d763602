"""One line on what is likely if AP stays near zero, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from od_detr.data.counts import counted
from od_detr.data.dataset import CocoDataset
from od_detr.training.display.samples import sample_places

NEAR_ZERO = 0.01  # AP below which something is wrong, or too early
FIRST_SHARE = 0.25  # of the steps after which that is worth a line
# Steps below which a detector finds little: one that starts from nothing, and a trained one.
FEW_STEPS, FEW_TRAINED = 1500, 300
TINY_PIXELS = 8.0  # side of an object that is hardly a cell of the finest feature map
UNIT_PIXELS = 3.0  # side below which boxes are hardly in pixels
MOST_IMAGES = 500  # whose objects are measured


@dataclass(frozen=True)
class Facts:
    """What the advice depends on.

    Attributes:
        step: optimizer steps so far.
        steps: optimizer steps of the whole run.
        ap: highest AP of the last validation.
        errors: counts of `error_kinds`.
        side: median side of the objects in pixels of their files; NaN without objects.
        input_side: the same in pixels as the detector sees them.
        pretrained: whether training started from a trained detector.
    """

    step: int
    steps: int
    ap: float
    errors: Mapping[str, int]
    side: float
    input_side: float
    pretrained: bool


def advice(facts: Facts) -> str | None:
    """A line, or None where AP is not near zero, cannot be measured, or it is too early to tell."""
    early = facts.step < FIRST_SHARE * facts.steps
    if early or not 0 <= facts.ap < NEAR_ZERO:
        return None
    return f"AP is near zero after {facts.step} of {facts.steps} steps: {_cause(facts)}"


def _cause(facts: Facts) -> str:
    """The first cause that the measurements speak for."""
    wrong, found = facts.errors["wrong_class"], facts.errors["found"]
    if facts.side < UNIT_PIXELS:
        return (
            f"the median object is {facts.side:.1f} pixels wide, so the boxes may be in another "
            "unit; they must be in pixels"
        )
    if facts.input_side < TINY_PIXELS:
        return (
            f"the median object is {facts.input_side:.1f} pixels wide in the resized images, too "
            "small to be found; raise --image-size"
        )
    if wrong > max(10, 3 * found):
        return (
            f"{wrong} detections lie on an object of another class and {found} on one of their "
            "own; check that the classes of training and validation agree"
        )
    if facts.steps < (FEW_TRAINED if facts.pretrained else FEW_STEPS):
        return f"a run of {counted(facts.steps, 'step')} is short for " + (
            "a trained detector, too; raise --epochs"
            if facts.pretrained
            else "a detector that starts from nothing; start from a trained one with --init, or "
            "raise --epochs"
        )
    return (
        "boxes, sizes and classes look right; look at samples/ in the run's folder, try a larger "
        f"--opt.lr{'' if facts.pretrained else ' or --init'}, or wait if the loss is still falling"
    )


def object_sides(data: CocoDataset, input_sizes: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Median side (root of the area) of the objects in pixels: in the files and as resized.

    Args:
        data: the data set; some hundred of its images are measured.
        input_sizes: (height, width) of each image as it enters the detector.

    Returns:
        NaN twice if there are no objects.
    """
    sides: list[np.ndarray] = [np.zeros((0, 2))]
    for place in sample_places(len(data), MOST_IMAGES):
        corners, _ = data.annotations.targets(place)
        own = np.sqrt(np.prod(corners[:, 2:] - corners[:, :2], 1))
        height, _ = data.annotations.sizes[place]
        sides.append(np.stack([own, own * input_sizes[place][0] / height], 1))
    together = np.concatenate(sides)
    if not len(together):
        return float("nan"), float("nan")
    own_side, input_side = np.median(together, 0)
    return float(own_side), float(input_side)


def facts_of(
    data: CocoDataset,
    summaries: Mapping[str, Mapping[str, Any]],
    step: int,
    steps: int,
    pretrained: bool,
) -> Facts:
    """Collects the facts after a validation on `data`, whose metrics are `summaries`."""
    best = max(summaries.values(), key=lambda each: each["AP"])
    side, input_side = object_sides(data, data.input_sizes())
    return Facts(step, steps, best["AP"], best["errors"], side, input_side, pretrained)
