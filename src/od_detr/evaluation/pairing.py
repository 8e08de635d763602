"""Pairs detections with objects by COCO's rule at one IoU, for the metrics of a threshold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torchvision.ops import box_iou

from od_detr.evaluation.ground_truth import GroundTruth

FOUND = 0.5  # IoU from which a detection finds an object
NEAR = 0.1  # IoU from which a detection means an object, though its box is wrong


@dataclass(frozen=True)
class Pairing:
    """Detections (D) by descending score, and how they lie to the objects (N) of their image.

    A detection finds the object of its class with the highest IoU of at least `FOUND` that no
    detection with a higher score found. So what it finds does not depend on a threshold.

    Attributes:
        truth: the objects.
        image: image number of each detection.
        category: its category number.
        score: its score.
        boxes_xyxy: its box in pixels.
        found: the object it finds, or -1.
        ignored: whether it finds nothing but lies in a crowd of its class: neither right nor wrong.
        own: its largest IoU with an object of its class, from `NEAR` on, else 0.
        other: its largest IoU with an object of another class, likewise.
        own_object: the object that `own` belongs to, or -1.
        other_object: the object that `other` belongs to, or -1.
    """

    truth: GroundTruth
    image: Int64[np.ndarray, " D"]
    category: Int64[np.ndarray, " D"]
    score: Float64[np.ndarray, " D"]
    boxes_xyxy: Float64[np.ndarray, "D 4"]
    found: Int64[np.ndarray, " D"]
    ignored: Bool[np.ndarray, " D"]
    own: Float64[np.ndarray, " D"]
    other: Float64[np.ndarray, " D"]
    own_object: Int64[np.ndarray, " D"]
    other_object: Int64[np.ndarray, " D"]


@dataclass(frozen=True)
class _Near:
    """Detections and objects of one image that overlap, pair by pair (P)."""

    detection: Int64[np.ndarray, " P"]
    thing: Int64[np.ndarray, " P"]
    iou: Float64[np.ndarray, " P"]

    def __getitem__(self, chosen: np.ndarray) -> _Near:
        return _Near(self.detection[chosen], self.thing[chosen], self.iou[chosen])


def paired(truth: GroundTruth, detections: Float[Tensor, "D 7"]) -> Pairing:
    """Pairs detections with objects.

    Args:
        truth: the objects.
        detections: rows as `CocoEvaluator.detections` gives them.
    """
    rows = detections.numpy()
    rows = rows[np.argsort(-rows[:, 5], kind="stable")]
    image, category = rows[:, 0].astype(np.int64), rows[:, 6].astype(np.int64)
    boxes = corners_of(rows[:, 1:5])
    near = _near(truth, image, boxes)
    same = category[near.detection] == truth.category[near.thing]
    crowd = truth.crowd[near.thing]
    found = _found(near[same & ~crowd & (near.iou >= FOUND)], len(rows), len(truth.image))
    own, own_object = _largest(near[same & ~crowd], len(rows))
    other, other_object = _largest(near[~same & ~crowd], len(rows))
    return Pairing(
        truth=truth,
        image=image,
        category=category,
        score=rows[:, 5],
        boxes_xyxy=boxes,
        found=found,
        ignored=(found < 0) & _in_crowds(truth, image, category, boxes),
        own=own,
        other=other,
        own_object=own_object,
        other_object=other_object,
    )


def by_image(image: Int64[np.ndarray, " D"]) -> Iterator[tuple[int, Int64[np.ndarray, " _d"]]]:
    """Each image number that occurs, with the places where it does, in ascending order."""
    order = np.argsort(image, kind="stable")
    numbers, starts = np.unique(image[order], return_index=True)
    places = np.split(order, starts[1:]) if len(numbers) else []
    yield from zip(numbers.tolist(), places, strict=True)


def _near(
    truth: GroundTruth, image: Int64[np.ndarray, " D"], boxes: Float64[np.ndarray, "D 4"]
) -> _Near:
    """All pairs with an IoU of at least `NEAR`."""
    starts = np.searchsorted(truth.image, np.arange(len(truth.images) + 1))
    corners = torch.from_numpy(corners_of(truth.boxes_xywh))
    pairs = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for number, places in by_image(image):
        first, last = starts[number], starts[number + 1]
        iou = box_iou(torch.from_numpy(boxes[places]), corners[first:last]).numpy()
        detection, thing = np.nonzero(iou >= NEAR)
        pairs.append((places[detection], first + thing, iou[detection, thing]))
    return _Near(*(np.concatenate(column) for column in zip(*pairs, strict=True)))


def _found(near: _Near, detections: int, objects: int) -> Int64[np.ndarray, " D"]:
    """The object each detection finds: by descending score, then by descending IoU."""
    found, free = [-1] * detections, [True] * objects
    order = np.lexsort((-near.iou, near.detection))
    for detection, thing in zip(
        near.detection[order].tolist(), near.thing[order].tolist(), strict=True
    ):
        if free[thing] and found[detection] < 0:
            found[detection], free[thing] = thing, False
    return np.array(found, dtype=np.int64)


def _largest(near: _Near, detections: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest IoU of each detection, and the object it is with; 0 and -1 without any."""
    iou, thing = np.zeros(detections), np.full(detections, -1, dtype=np.int64)
    order = np.argsort(near.iou, kind="stable")  # the last one written stays
    iou[near.detection[order]] = near.iou[order]
    thing[near.detection[order]] = near.thing[order]
    return iou, thing


def _in_crowds(
    truth: GroundTruth,
    image: Int64[np.ndarray, " D"],
    category: Int64[np.ndarray, " D"],
    boxes: Float64[np.ndarray, "D 4"],
) -> Bool[np.ndarray, " D"]:
    """Whether at least `FOUND` of a detection's own area lies in a crowd of its class."""
    inside = np.zeros(len(image), dtype=np.bool_)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], 1).clip(min=np.finfo(np.float64).tiny)
    order = np.argsort(image, kind="stable")
    crowds = np.flatnonzero(truth.crowd)
    firsts, lasts = (
        np.searchsorted(image[order], truth.image[crowds], side=side) for side in ("left", "right")
    )
    for thing, first, last in zip(crowds, firsts, lasts, strict=True):
        near = order[first:last]  # detections in the crowd's image
        near = near[category[near] == truth.category[thing]]
        crowd = corners_of(truth.boxes_xywh[thing : thing + 1])[0]
        low = np.maximum(boxes[near, :2], crowd[:2])
        high = np.minimum(boxes[near, 2:], crowd[2:])
        share = np.prod((high - low).clip(min=0), 1) / area[near]
        inside[near] |= share >= FOUND
    return inside


def corners_of(boxes_xywh: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 4"]:
    """Left, top, right and bottom of boxes in pixels."""
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], 1)
