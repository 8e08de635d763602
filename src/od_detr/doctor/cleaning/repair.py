"""Repairs of annotations that lose no record: units, sizes, names, edges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from od_detr.data.annotations import Annotations, Categories
from od_detr.data.headers.header import Header
from od_detr.doctor.checks.classes import counts_of, spelling
from od_detr.doctor.problem import Split

ASPECT = 0.01  # relative difference of two aspects that are the same but for rounding


def repaired(split: Split) -> Split:
    """Boxes in x, y, width, height in pixels of the image as a viewer shows it."""
    found = in_pixels(split.annotations)
    boxes, sizes = found.boxes_xywh.copy(), found.sizes.copy()
    for image, look in enumerate(split.looks):
        if look.header.code or not found.paths[image]:
            continue
        mine = slice(int(found.starts[image]), int(found.starts[image + 1]))
        height, width = sizes[image].tolist()
        fitted = _fitted(boxes[mine], (height, width), look.header)
        if fitted is not None:
            boxes[mine], sizes[image] = fitted, look.header.size
    return replace(split, annotations=with_boxes(replace(found, sizes=sizes), boxes))


def in_pixels(found: Annotations) -> Annotations:
    """Boxes in the unit of the format, where all were written in another one."""
    codes = {finding.code for finding in found.findings}
    height, width = found.sizes[found.owners].T
    a, b, c, d = found.boxes_xywh.T
    if "box-normalised" in codes:
        boxes = np.stack([a * width, b * height, c * width, d * height], 1)
    elif "box-corners" in codes:
        boxes = np.stack([a, b, c - a, d - b], 1)
    elif "box-centres" in codes:
        boxes = np.stack([a - c / 2, b - d / 2, c, d], 1)
    else:
        return found
    return with_boxes(found, boxes)


def with_boxes(found: Annotations, boxes: Float64[np.ndarray, "N 4"]) -> Annotations:
    """The same with other boxes; a box that changed has its own area, and none exceeds its box."""
    area = np.maximum(boxes[:, 2:], 0).prod(1)
    same = (boxes == found.boxes_xywh).all(1) & (found.area <= area)
    return replace(found, boxes_xywh=boxes, area=np.where(same, found.area, area))


def clipped_to_images(found: Annotations) -> Annotations:
    """No box reaches outside of its image."""
    limits = found.sizes[found.owners][:, [1, 0]].astype(np.float64)
    low = np.clip(found.boxes_xywh[:, :2], 0, limits)
    high = np.clip(found.boxes_xywh[:, :2] + found.boxes_xywh[:, 2:], 0, limits)
    inside = (low == found.boxes_xywh[:, :2]).all(1)
    inside &= (high == found.boxes_xywh[:, :2] + found.boxes_xywh[:, 2:]).all(1)
    # Boxes inside keep the very numbers that were written.
    clipped = np.where(inside[:, None], found.boxes_xywh, np.concatenate([low, high - low], 1))
    return with_boxes(found, clipped)


def with_joint_classes(splits: Sequence[Split]) -> list[Split]:
    """One list of classes for all splits; names that differ by case or blanks become one.

    The spelling with the most boxes stays. Category ids are those of the first split that has the
    class, or new ones where two classes share an id.
    """
    votes: Counter[str] = Counter()
    for split in splits:
        for name, count in counts_of(split.annotations).items():
            votes[name] += count
    best: dict[str, str] = {}
    for name in votes:
        key = spelling(name)
        best[key] = max(best.get(key, name), name, key=lambda each: votes[each])
    categories = _categories(splits, best)
    places = {spelling(name): label for label, name in enumerate(categories.names)}
    return [
        replace(split, annotations=_relabelled(split.annotations, categories, places))
        for split in splits
    ]


def _categories(splits: Sequence[Split], best: dict[str, str]) -> Categories:
    chosen: dict[str, tuple[int, str]] = {}
    for split in splits:
        own = split.annotations.categories
        for identity, name, parent in zip(own.ids, own.names, own.parents, strict=True):
            chosen.setdefault(spelling(name), (identity, parent))
    ids = [identity for identity, _ in chosen.values()]
    if len(set(ids)) < len(ids):
        ids = list(range(1, len(ids) + 1))
    names = [best[key].strip() for key in chosen]
    parents = [parent for _, parent in chosen.values()]
    rows = sorted(zip(ids, names, parents, strict=True))
    return Categories(*(tuple(column) for column in zip(*rows, strict=True)))


def _relabelled(found: Annotations, categories: Categories, places: dict[str, int]) -> Annotations:
    new = np.array([places[spelling(name)] for name in found.classes], dtype=np.int64)
    return replace(found, labels=new[found.labels], categories=categories)


def _fitted(
    boxes: Float64[np.ndarray, "M 4"], entry: tuple[int, int], header: Header
) -> Float64[np.ndarray, "M 4"] | None:
    """Boxes for the file as it is, if the size of its entry allows to say; None if it does not."""
    if entry == header.size or min(entry) < 1:
        return boxes
    if entry == header.stored_size:
        return turned(boxes, header)
    (height, width), (tall, wide) = entry, header.size
    if abs(height * wide - width * tall) > ASPECT * width * tall:
        return None
    return boxes * np.array([wide / width, tall / height, wide / width, tall / height])


def turned(boxes: Float64[np.ndarray, "M 4"], header: Header) -> Float64[np.ndarray, "M 4"]:
    """Boxes of the stored pixels, in the image as its EXIF orientation 5 to 8 turns it."""
    height, width = header.stored_size
    x, y, w, h = boxes.T
    left, top = {
        5: (y, x),  # mirrored at the main diagonal
        6: (height - y - h, x),  # a quarter clockwise
        7: (height - y - h, width - x - w),  # mirrored at the other diagonal
        8: (y, width - x - w),  # a quarter counter-clockwise
    }[header.orientation]
    return np.stack([left, top, h, w], 1)
