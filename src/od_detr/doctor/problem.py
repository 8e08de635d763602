"""A problem of a data set: one kind, in one split, with all the records that have it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from od_detr.data.annotations import Annotations
from od_detr.data.findings import Finding, Severity
from od_detr.data.headers.header import OF_FILES
from od_detr.doctor.catalogue import KINDS
from od_detr.doctor.kind import Kind
from od_detr.doctor.looks import Look

MOST_EXAMPLES = 100
NONE: Int64[np.ndarray, " 0"] = np.zeros(0, dtype=np.int64)
# What the doctor examines itself, record by record; readers only count these.
EXAMINED = (OF_FILES - {"image-file"}) | {
    "box-outside",
    "box-below-pixel",
    "image-size",
    "image-id",
}


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set.

    Attributes:
        name: train, val, test, or all for a set without splits.
        annotations: its images and boxes, its own classes.
        looks: what each image file is, in the order of the images.
    """

    name: str
    annotations: Annotations
    looks: Sequence[Look]

    @property
    def objects(self) -> Int64[np.ndarray, " I"]:
        """How many boxes of each image are trained on; crowds are not."""
        found = self.annotations
        return np.bincount(found.owners[~found.crowd], minlength=len(found.image_ids))

    def image(self, index: int) -> str:
        """What messages call an image."""
        return self.annotations.names[index] or f"image {self.annotations.image_ids[index]}"

    def box(self, index: int) -> str:
        """What messages call a box: its image, its record and its class."""
        found = self.annotations
        image = self.image(int(found.owners[index]))
        name = found.classes[int(found.labels[index])]
        return f"{image}: {found.record(index).removeprefix(f'{image}: ')} ({name})"


@dataclass(frozen=True, eq=False)
class Problem:
    """One kind of problem in one split.

    Attributes:
        code: the kind, a key of `KINDS` or a code of a reader.
        split: the split's name; empty for the whole set.
        source: the file or folder.
        count: how many boxes, images or classes have it.
        total: among how many.
        examples: the first records that have it, and what is wrong with each.
        images: indices of the images that have it, where they are known.
        boxes: indices of the boxes that have it, where they are known.
        kind: what is known about the kind.
    """

    code: str
    split: str
    source: str
    count: int
    total: int
    examples: tuple[str, ...]
    kind: Kind
    images: Int64[np.ndarray, " J"] = field(default_factory=lambda: NONE)
    boxes: Int64[np.ndarray, " M"] = field(default_factory=lambda: NONE)

    @property
    def severity(self) -> Severity:
        """`error` stops a training."""
        return self.kind.severity

    @property
    def cost(self) -> float:
        """The part of the split that is lost or measured wrongly, 0 to 1; 1 if training stops."""
        if self.severity == "error":
            return 1.0
        return 0.0 if self.severity == "note" else self.kind.harm * self.share

    @property
    def share(self) -> float:
        """The part of the split's boxes, images or classes that have the problem."""
        return min(1.0, self.count / max(1, self.total))

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "code": self.code,
            "severity": self.severity,
            "split": self.split,
            "source": self.source,
            "problem": self.kind.title,
            "count": self.count,
            "total": self.total,
            "unit": self.kind.unit,
            "cost": round(self.cost, 4),
            "fix": self.kind.fix,
            "cleaned": self.kind.cleaned,
            "examples": list(self.examples),
        }


def of_boxes(
    code: str, split: Split, boxes: np.ndarray, detail: Callable[[int], str]
) -> list[Problem]:
    """A problem of these boxes; none if there are none. `detail` says what is wrong with one."""
    if not len(boxes):
        return []
    found = split.annotations
    examples = tuple(f"{split.box(box)}: {detail(box)}" for box in boxes[:MOST_EXAMPLES].tolist())
    made = _problem(code, split, len(boxes), len(found.labels), examples)
    return [replace(made, images=np.unique(found.owners[boxes]), boxes=boxes)]


def of_images(
    code: str,
    split: Split,
    images: Sequence[int] | np.ndarray,
    detail: Callable[[int], str],
    total: int | None = None,
) -> list[Problem]:
    """A problem of these images; none if there are none. `detail` says what is wrong with one."""
    indices = np.asarray(images, dtype=np.int64)
    if not len(indices):
        return []
    shown = indices[:MOST_EXAMPLES].tolist()
    examples = tuple(f"{split.image(image)}: {detail(image)}" for image in shown)
    total = len(split.annotations.image_ids) if total is None else total
    return [replace(_problem(code, split, len(indices), total, examples), images=indices)]


def of_classes(code: str, split: Split, examples: Sequence[str], total: int) -> list[Problem]:
    """A problem of some classes, one example each; none if there are none."""
    if not examples:
        return []
    return [_problem(code, split, len(examples), total, tuple(examples[:MOST_EXAMPLES]))]


def of_files(code: str, files: Sequence[str], total: int) -> list[Problem]:
    """A problem of files that belong to no split; none if there are none."""
    if not files:
        return []
    examples = tuple(files[:MOST_EXAMPLES])
    folder = os.path.dirname(files[0])
    return [Problem(code, "", folder, len(files), total, examples, KINDS[code])]


def of_split(code: str, split: Split, example: str) -> Problem:
    """A problem of a split as a whole."""
    return _problem(code, split, 1, 1, (example,))


def of_readers(split: Split) -> list[Problem]:
    """What readers found, a problem for each code."""
    by_code: dict[str, list[Finding]] = {}
    for finding in split.annotations.findings:
        if finding.code not in EXAMINED:
            by_code.setdefault(finding.code, []).append(finding)
    return [_read(code, split, members) for code, members in by_code.items()]


def _read(code: str, split: Split, members: Sequence[Finding]) -> Problem:
    first, found = members[0], split.annotations
    known = KINDS.get(code)
    title = code.replace("-", " ") if len(members) > 1 else first.problem
    kind = known or Kind(title, "images" if code.startswith("image-") else "boxes", 0.5, first.fix)
    kind = replace(kind, severity=first.severity)
    examples = tuple(_text(each, found.file) for each in members[:MOST_EXAMPLES])
    count = sum(each.count for each in members)
    totals = {
        "boxes": len(found.labels),
        "images": len(found.image_ids),
        "classes": len(found.classes),
        "splits": 1,
    }
    total = max(count, totals[kind.unit])  # readers also count records that they left out
    return Problem(code, split.name, str(found.file), count, total, examples, kind)


def _text(finding: Finding, source: Path) -> str:
    """A finding without the file that all findings of the split share."""
    place = "" if finding.source == str(source) else finding.source
    return ": ".join(part for part in (place, finding.record, finding.problem) if part)


def _problem(code: str, split: Split, count: int, total: int, examples: tuple[str, ...]) -> Problem:
    file = str(split.annotations.file)
    return Problem(code, split.name, file, count, total, examples, KINDS[code])
