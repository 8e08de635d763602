"""Checks of every box against its image and against the other boxes of its image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from od_detr.data.annotations import Annotations
from od_detr.doctor.problem import Problem, Split, of_boxes

THIN = 30.0  # long side over short side
WHOLE = 0.99  # share of both sides of the image
NEARLY = 0.9  # IoU of boxes that are nearly the same
EVERYWHERE = 10  # images with the very same box
FAR = 1e6  # pixels; reported by the readers
# A file whose boxes are all in another unit would show every other fault, too.
OTHER_UNIT = ("box-normalised", "box-corners", "box-centres")


def box_problems(split: Split) -> list[Problem]:
    """Every check of single boxes and of pairs of boxes."""
    found = split.annotations
    if in_other_unit(found):
        return []
    geometry = Geometry.of(found)
    again, nearly, classes = repeats(found, geometry.sound & ~found.crowd)
    masks: dict[str, tuple[Bool[np.ndarray, " N"], Callable[[int], str]]] = {
        "box-empty": (geometry.empty, lambda box: f"bbox {_row(found, box)}"),
        "box-off-image": (geometry.off, lambda box: _against(found, box)),
        "box-overhang": (geometry.overhang, lambda box: _overhang(found, box)),
        "box-below-pixel": (geometry.below_pixel, lambda box: f"bbox {_row(found, box)}"),
        "box-thin": (geometry.thin, lambda box: f"bbox {_row(found, box)}"),
        "box-whole-image": (geometry.whole, lambda box: _against(found, box)),
        "box-area": (geometry.area, lambda box: _area(found, box)),
        "box-same-everywhere": (
            everywhere(found, geometry.sound),
            lambda box: f"bbox {_row(found, box)}",
        ),
    }
    problems: list[Problem] = []
    for code, (mask, detail) in masks.items():
        problems += of_boxes(code, split, np.flatnonzero(mask), detail)
    pairs = {
        "box-repeated": again,
        "box-nearly-repeated": nearly,
        "box-two-classes": classes,
    }
    for code, other in pairs.items():
        problems += of_boxes(
            code,
            split,
            np.array(sorted(other), dtype=np.int64),
            lambda box, other=other: f"like {_name(found, other[box])}",
        )
    return problems


def in_other_unit(found: Annotations) -> bool:
    """Whether the readers found that all boxes are in another unit than pixels."""
    return any(finding.code in OTHER_UNIT for finding in found.findings)


@dataclass(frozen=True)
class Geometry:
    """What is wrong with each box by itself; `sound` boxes have an area inside their image."""

    empty: Bool[np.ndarray, " N"]
    off: Bool[np.ndarray, " N"]
    overhang: Bool[np.ndarray, " N"]
    below_pixel: Bool[np.ndarray, " N"]
    thin: Bool[np.ndarray, " N"]
    whole: Bool[np.ndarray, " N"]
    area: Bool[np.ndarray, " N"]
    sound: Bool[np.ndarray, " N"]

    @classmethod
    def of(cls, found: Annotations) -> Geometry:
        """Examines the boxes; where the size of an image is unknown, none reaches outside.

        There YOLO's boxes have no area, because they are shares of that size.
        """
        sizes = found.sizes[found.owners].astype(np.float64)
        unknown = (sizes < 1).any(1)
        sizes[unknown] = np.inf
        height, width = sizes.T
        x, y, w, h = found.boxes_xywh.T
        far = np.asarray((np.abs(found.boxes_xywh) > FAR).any(1))
        flat = (w <= 0) | (h <= 0)
        shares = unknown & (found.format == "yolo")
        empty, solid = flat & ~shares, ~flat & ~far
        seen_w = np.minimum(x + w, width) - np.maximum(x, 0)
        seen_h = np.minimum(y + h, height) - np.maximum(y, 0)
        off = solid & ((seen_w <= 0) | (seen_h <= 0))
        sound = solid & ~off
        # VOC and many tools are a pixel off; that does no harm.
        slack_x, slack_y = np.maximum(2, 0.01 * width), np.maximum(2, 0.01 * height)
        overhang = (x < -slack_x) | (y < -slack_y)
        overhang |= (x + w > width + slack_x) | (y + h > height + slack_y)
        below_pixel = sound & ((w < 1) | (h < 1))
        long, short = np.maximum(seen_w, seen_h), np.minimum(seen_w, seen_h)
        crowd = found.crowd
        return cls(
            empty=empty,
            off=off,
            overhang=sound & overhang,
            below_pixel=below_pixel,
            thin=sound & ~below_pixel & ~crowd & (long > THIN * short),
            whole=sound & ~crowd & (seen_w >= WHOLE * width) & (seen_h >= WHOLE * height),
            area=sound & ~crowd & (found.area > 1.02 * w * h + 2),
            sound=sound & ~below_pixel,
        )


def everywhere(found: Annotations, usable: Bool[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Boxes with the very same coordinates and class in many images.

    Args:
        found: the boxes.
        usable: those that are compared.
    """
    rows = np.column_stack([found.boxes_xywh, found.labels])
    # Equal rows have equal sums. Sorting numbers is fast, so few rows are left to compare whole.
    sums = (rows * np.sqrt([2, 3, 5, 7, 11])).sum(1)
    _, inverse, counts = np.unique(sums, return_inverse=True, return_counts=True)
    likely = np.flatnonzero(usable & (counts >= EVERYWHERE)[inverse])
    _, inverse = np.unique(rows[likely], axis=0, return_inverse=True)
    same = inverse.reshape(-1)
    images = np.bincount(np.unique(np.stack([same, found.owners[likely]]), axis=1)[0])
    mask = np.zeros(len(rows), np.bool_)
    mask[likely[images[same] >= EVERYWHERE]] = True
    return mask


def repeats(
    found: Annotations, usable: Bool[np.ndarray, " N"]
) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    """Boxes that repeat an earlier one: the very same, nearly the same, and of another class.

    Each maps a box to the earlier one in its image. Crowds and boxes without area are left out.
    """
    again: dict[int, int] = {}
    nearly: dict[int, int] = {}
    classes: dict[int, int] = {}
    rows = np.flatnonzero(usable)
    for first, second in close_pairs(found, rows):
        if found.labels[first] != found.labels[second]:
            classes.setdefault(second, first)
        elif (found.boxes_xywh[first] == found.boxes_xywh[second]).all():
            again.setdefault(second, first)
        else:
            nearly.setdefault(second, first)
    return again, {b: a for b, a in nearly.items() if b not in again}, classes


def close_pairs(found: Annotations, rows: Int64[np.ndarray, " M"]) -> list[tuple[int, int]]:
    """Pairs of these boxes in one image whose IoU is at least `NEARLY`, the earlier box first.

    Such boxes have nearly the same left side. So boxes are sorted by image and left side, and each
    is compared with the next, the one after that, and so on, as long as any pair of that distance
    may overlap enough.
    """
    boxes, owners = found.boxes_xywh[rows], found.owners[rows]
    order = np.lexsort((boxes[:, 0], owners))
    boxes, owners, rows = boxes[order], owners[order], rows[order]
    pairs: list[tuple[int, int]] = []
    current = np.arange(len(rows) - 1)
    for distance in range(1, len(rows)):
        current = current[current + distance < len(rows)]
        other = current + distance
        # With an IoU of r, the left sides differ by at most (1 - r) / r of the narrower box.
        reach = boxes[current, 0] + boxes[current, 2] * (1 - NEARLY) / NEARLY
        near = (owners[current] == owners[other]) & (boxes[other, 0] <= reach)
        current = current[near]
        if not len(current):
            break
        same = iou(boxes[current], boxes[current + distance]) >= NEARLY
        for left, right in zip(rows[current[same]], rows[current[same] + distance], strict=True):
            pairs.append((int(min(left, right)), int(max(left, right))))
    return sorted(pairs)


def iou(a: Float64[np.ndarray, "N 4"], b: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, " N"]:
    """Intersection over union of boxes x, y, width, height, pair by pair."""
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    shared = np.maximum(high - low, 0).prod(1)
    return shared / (a[:, 2:].prod(1) + b[:, 2:].prod(1) - shared)


def _row(found: Annotations, box: int) -> str:
    return "[" + ", ".join(f"{value:g}" for value in found.boxes_xywh[box].tolist()) + "]"


def _against(found: Annotations, box: int) -> str:
    height, width = found.sizes[found.owners[box]].tolist()
    return f"bbox {_row(found, box)} in an image of {width} x {height} pixels"


def _overhang(found: Annotations, box: int) -> str:
    height, width = found.sizes[found.owners[box]].tolist()
    x, y, w, h = found.boxes_xywh[box].tolist()
    as_corners = 0 <= x < w <= width and 0 <= y < h <= height
    hint = "; it fits as two corners" if as_corners else ""
    return f"{_against(found, box)}{hint}"


def _area(found: Annotations, box: int) -> str:
    return f"area {found.area[box]:g}, bbox {_row(found, box)}"


def _name(found: Annotations, box: int) -> str:
    return f"{found.record(box)} ({found.classes[int(found.labels[box])]})"
