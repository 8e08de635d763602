"""Checks boxes against image sizes: boxes in another unit than pixels, or outside the image."""

from __future__ import annotations

import numpy as np

from od_detr.data.annotations import Annotations
from od_detr.data.findings import Finding, error, warning

NEARLY_ALL = 0.95
# Corners and centres look like boxes that reach outside; so many must do so before it counts as
# proof.
TELLING = 0.25
FEWEST = 4  # boxes from which a unit is concluded
FAR = 1e6  # pixels: no image that can be decoded is so long
STEP = 1 << 17  # boxes at a time: bounds the memory


def box_findings(annotations: Annotations) -> list[Finding]:
    """Counts boxes that look normalised, given as corners or centres, or absurdly far outside.

    The format gives x, y, width and height in pixels. Where nearly all boxes say that they are
    something else, that is an error; single ones are counted.
    """
    total, counts, first_far = 0, np.zeros(5, dtype=np.int64), -1
    for start in range(0, len(annotations.labels), STEP):
        rows = slice(start, start + STEP)
        boxes, sizes = annotations.boxes_xywh[rows], annotations.sizes[annotations.owners[rows]]
        far = np.asarray((np.abs(boxes) > FAR).any(1))
        if first_far < 0 and far.any():
            first_far = start + int(np.flatnonzero(far)[0])
        counts += _looks(boxes, sizes, far)
        total += len(boxes)
    found = [] if total == 0 else _judged(annotations, total, *counts[1:].tolist())
    if counts[0]:
        found.append(
            warning(
                "box-far",
                annotations.file,
                annotations.record(first_far),
                f"bbox {annotations.boxes_xywh[first_far].tolist()} lies more than a million "
                "pixels away "
                f"({counts[0]} such boxes)",
                "correct or remove the box",
                int(counts[0]),
            )
        )
    return found


def _looks(boxes: np.ndarray, sizes: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Counts boxes: far away, below a pixel, too large, fitting as corners, fitting as centres."""
    height, width = sizes[:, 0].astype(np.float64), sizes[:, 1].astype(np.float64)
    x, y, w, h = boxes.T
    tiny = (boxes >= -0.01).all(1) & (boxes <= 1.01).all(1) & (height > 2) & (width > 2)
    slack_x, slack_y = 0.02 * width + 1, 0.02 * height + 1
    over = (x + w > width + slack_x) | (y + h > height + slack_y)
    over &= (height > 0) & (width > 0)  # unknown of images that cannot be read
    corners = (x >= 0) & (y >= 0) & (w > x) & (h > y) & (w <= width + 1) & (h <= height + 1)
    centres = (x - w / 2 >= -slack_x) & (x + w / 2 <= width + slack_x)
    centres &= (y - h / 2 >= -slack_y) & (y + h / 2 <= height + slack_y)
    columns = (far, tiny & ~far, over, corners & ~far, centres & ~far)
    return np.array([column.sum() for column in columns], dtype=np.int64)


def _judged(
    annotations: Annotations, total: int, tiny: int, over: int, corners: int, centres: int
) -> list[Finding]:
    file, many = annotations.file, total >= FEWEST

    def refused(code: str, number: int, unit: str, fix: str) -> list[Finding]:
        problem = (
            f"bbox of {number} of {total} boxes looks like {unit}, "
            "not x, y, width, height in pixels"
        )
        return [error(code, file, annotations.record(0), problem, fix)]

    if tiny and many and tiny >= NEARLY_ALL * total:
        fix = "multiply by the width and height of the image"
        return refused("box-normalised", tiny, "normalised coordinates", fix)
    if many and over >= TELLING * total:
        if corners >= NEARLY_ALL * total:
            fix = "write [x, y, width, height]"
            return refused("box-corners", corners, "two corners (x1, y1, x2, y2)", fix)
        if centres >= NEARLY_ALL * total:
            fix = "write the top left corner instead of the centre"
            return refused("box-centres", centres, "a centre and a size", fix)
    found = []
    if tiny:
        found.append(
            warning(
                "box-below-pixel",
                file,
                "",
                f"bbox of {tiny} of {total} boxes lies within one pixel, perhaps in normalised "
                "coordinates",
                "write pixels",
                tiny,
            )
        )
    if over:
        found.append(
            warning(
                "box-outside",
                file,
                "",
                f"bbox of {over} of {total} boxes reaches outside its image, perhaps given as "
                "corners or centres",
                "write [x, y, width, height] in pixels",
                over,
            )
        )
    return found
