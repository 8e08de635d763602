"""The objects an evaluation looks for, numbered as the counting code needs them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from od_detr.data.annotations import Annotations
from od_detr.data.findings import raise_errors
from od_detr.data.formats.coco import from_document, read_coco
from od_detr.errors import InputError

# Findings about image files and box units; boxes as written can be evaluated without them.
ONLY_FOR_TRAINING = ("image-file", "image-size", "image-height", "image-width", "box-")


@dataclass(frozen=True)
class GroundTruth:
    """The objects to find, with images and categories numbered from 0 by ascending id.

    Objects are as written, in pixels, sorted by image: those outside of their image count, too.
    `names` are the class names of all category numbers, with the id in brackets where several
    categories share a name. `source` names the annotations in messages.
    """

    source: str
    images: dict[int, int]
    categories: dict[int, int]
    names: list[str]
    image: Int64[np.ndarray, " N"]
    category: Int64[np.ndarray, " N"]
    boxes_xywh: Float64[np.ndarray, "N 4"]
    area: Float64[np.ndarray, " N"]
    crowd: Bool[np.ndarray, " N"]

    def image_number(self, identity: Any, where: str) -> int:
        """The number of an image id that `where` mentions.

        Raises:
            InputError: there is no such image.
        """
        if identity not in self.images:
            raise InputError(
                f"{where}: image_id {identity!r} is not among the images of {self.source}; "
                "correct or remove it"
            )
        return self.images[identity]

    def category_number(self, identity: Any, where: str) -> int:
        """The number of a category id that `where` mentions.

        Raises:
            InputError: there is no such category.
        """
        if identity not in self.categories:
            raise InputError(
                f"{where}: category_id {identity!r} is not among the categories of {self.source}; "
                "correct or remove it"
            )
        return self.categories[identity]

    def result_row(self, result: dict[str, Any], number: int) -> list[float]:
        """A COCO result as image number, x, y, width, height in pixels, score, category number.

        Raises:
            InputError: a field is missing, unknown or not finite.
        """
        where = f"detection {number} of the results"
        image = self.image_number(result.get("image_id"), where)
        category = self.category_number(result.get("category_id"), where)
        score = result.get("score")
        if score is None or not math.isfinite(score):
            raise InputError(f"{where}: score is {score!r}; give a finite number")
        box = result.get("bbox")
        if box is None or len(box) != 4 or not all(math.isfinite(value) for value in box):
            raise InputError(
                f"{where}: bbox is {box!r}; give four finite numbers x, y, width, height in pixels"
            )
        return [float(image), *map(float, box), float(score), float(category)]


def ground_truth(annotations: Annotations | str | Path | dict) -> GroundTruth:
    """The ground truth of a split that was read, of a COCO file, or of such a file's content.

    Without `iscrowd` an object is not a crowd; without `area` its area is that of its box.
    Annotation ids do not matter. Nothing is changed.

    Raises:
        InputError: with the file, the id and the field of the first fault.
    """
    if isinstance(annotations, dict):
        found = from_document(annotations)
    elif isinstance(annotations, Annotations):
        found = annotations
    else:
        found = read_coco(Path(annotations))
    raise_errors(each for each in found.findings if not each.code.startswith(ONLY_FOR_TRAINING))
    image_rank = _rank(found.image_ids)
    # A class that the split does not list has no id; it gets a number after all others, for
    # nothing.
    known = [label for label, identity in enumerate(found.category_ids) if identity >= 0]
    ids = np.array([found.category_ids[label] for label in known], dtype=np.int64)
    number_of_label = np.full(len(found.category_ids), -1, dtype=np.int64)
    number_of_label[known] = _rank(ids)
    images = image_rank[found.owners]
    order = np.argsort(images, kind="stable")
    ascending = sorted(zip(ids.tolist(), (found.classes[label] for label in known), strict=True))
    return GroundTruth(
        str(found.file),
        {identity: number for number, identity in enumerate(sorted(found.image_ids.tolist()))},
        {identity: number for number, (identity, _) in enumerate(ascending)},
        _names(ascending),
        images[order],
        number_of_label[found.labels[order]],
        found.boxes_xywh[order],
        found.area[order],
        found.crowd[order],
    )


def _rank(ids: Int64[np.ndarray, " I"]) -> Int64[np.ndarray, " I"]:
    """The place of each id among the ascending ids."""
    rank = np.empty(len(ids), dtype=np.int64)
    rank[np.argsort(ids, kind="stable")] = np.arange(len(ids))
    return rank


def _names(categories: list[tuple[int, str]]) -> list[str]:
    uses = Counter(name for _, name in categories)
    return [name if uses[name] == 1 else f"{name} ({identity})" for identity, name in categories]
