"""Puts the images and objects that a reader of label files found into `Annotations`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from od_detr.data.annotations import Annotations, Categories, Strings
from od_detr.data.findings import Finding, limited
from od_detr.data.preparation.units import box_findings


@dataclass
class LabelledImage:
    """One image and its objects: (label, x, y, width, height in pixels, crowd) each.

    `path` is empty where there is no such file.
    """

    name: str
    path: str
    size: tuple[int, int]
    objects: list[tuple[int, float, float, float, float, bool]] = field(default_factory=list)


def assembled(
    file: Path,
    format_name: str,
    images: Sequence[LabelledImage],
    categories: Categories,
    findings: Sequence[Finding],
) -> Annotations:
    """Numbers the images from 1 in their order and joins their objects."""
    counts = [len(image.objects) for image in images]
    rows = [row for image in images for row in image.objects]
    table = np.array([row[1:5] for row in rows], dtype=np.float64).reshape(-1, 4)
    made = Annotations(
        file,
        format_name,
        np.arange(1, len(images) + 1),
        Strings.of(image.name for image in images),
        Strings.of(image.path for image in images),
        np.array([image.size for image in images], dtype=np.int64).reshape(-1, 2),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        table,
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[5] for row in rows], dtype=np.bool_),
        table[:, 2] * table[:, 3],
        np.full(len(rows), -1, dtype=np.int64),
        np.array([place for count in counts for place in range(count)], dtype=np.int64),
        categories,
        tuple(limited(findings)),
    )
    return made.with_findings(box_findings(made))
