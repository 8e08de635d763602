"""What is wrong with a detector's detections above a threshold: five kinds of error, duplicates."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from od_detr.evaluation.pairing import FOUND, NEAR, Pairing, by_image, corners_of

REPEATS = 0.7  # IoU above which a detection repeats another of its class
KINDS = ("found", "missed", "background", "duplicate", "wrong_class", "badly_placed")


def error_kinds(pairing: Pairing, threshold: float) -> dict[str, int]:
    """Counts objects and detections above a threshold by kind, see `KINDS`.

    An object is `found`, or `missed` if no wrong detection below means it either. A detection that
    finds nothing is the first of these that it can be:

    - `duplicate`: it has an IoU of at least 0.5 with an object of its class, found by another;
    - `wrong_class`: it has one of at least 0.5 with an object of another class;
    - `badly_placed`: it has one of 0.1 to 0.5 with an object of its class;
    - `background`: none of these.

    Detections in crowds count nowhere.
    """
    shown = pairing.score >= threshold
    finds = shown & (pairing.found >= 0)
    wrong = shown & (pairing.found < 0) & ~pairing.ignored
    duplicate = wrong & (pairing.own >= FOUND)
    wrong_class = wrong & ~duplicate & (pairing.other >= FOUND)
    badly_placed = wrong & ~duplicate & ~wrong_class & (pairing.own >= NEAR)
    background = wrong & ~duplicate & ~wrong_class & ~badly_placed
    missed = ~pairing.truth.crowd
    missed[pairing.found[finds]] = False
    missed[pairing.own_object[badly_placed]] = False
    missed[pairing.other_object[wrong_class]] = False
    counted = (finds, missed, background, duplicate, wrong_class, badly_placed)
    return {name: int(each.sum()) for name, each in zip(KINDS, counted, strict=True)}


def duplicate_share(pairing: Pairing, threshold: float) -> float:
    """Share of the detections above a threshold that repeat another one.

    A detection repeats another of its image and class if that has a higher score and their IoU is
    above 0.7. 0 without detections.
    """
    shown = np.flatnonzero(pairing.score >= threshold)
    repeated = 0
    for _, places in by_image(pairing.image[shown]):
        chosen = shown[places]  # by descending score
        boxes = torch.from_numpy(pairing.boxes_xyxy[chosen])
        category = pairing.category[chosen]
        near = box_iou(boxes, boxes).numpy() > REPEATS
        near &= category[:, None] == category
        repeated += int(np.tril(near, -1).any(1).sum())
    return repeated / max(1, len(shown))


def without_duplicates(detections: Float[Tensor, "D 7"]) -> Float[Tensor, "_kept 7"]:
    """The rows of `CocoEvaluator.detections` that non-maximum suppression at IoU 0.7 keeps."""
    kept: Bool[Tensor, " D"] = torch.zeros(len(detections), dtype=torch.bool)
    boxes = torch.from_numpy(corners_of(detections[:, 1:5].numpy()))
    for _, places in by_image(detections[:, 0].long().numpy()):
        rows = torch.from_numpy(places)
        best = batched_nms(boxes[rows], detections[rows, 5], detections[rows, 6].long(), REPEATS)
        kept[rows[best]] = True
    return detections[kept]
