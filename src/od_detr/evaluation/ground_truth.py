"""COCO annotations and results, read for an evaluation: checked, cleaned and numbered."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from od_detr.errors import InputError
from od_detr.files import read_json


@dataclass(frozen=True)
class GroundTruth:
    """The objects to find, with images and categories numbered from 0 by ascending id.

    `dataset` is COCO's structure in these numbers, and `names` the class name of every category number
    (with the id in brackets where several categories share a name). `source` names the file in messages.
    """

    source: str
    images: dict[Any, int]
    categories: dict[Any, int]
    names: list[str]
    dataset: dict[str, list[dict[str, Any]]]

    def image(self, identity: Any, where: str) -> int:
        """The number of an image id that `where` speaks of."""
        if identity not in self.images:
            raise InputError(
                f"{where}: image_id {identity!r} is not among the images of {self.source}; correct or remove it"
            )
        return self.images[identity]

    def category(self, identity: Any, where: str) -> int:
        """The number of a category id that `where` speaks of."""
        if identity not in self.categories:
            raise InputError(
                f"{where}: category_id {identity!r} is not among the categories of {self.source}; correct or remove it"
            )
        return self.categories[identity]

    def result_row(self, result: dict[str, Any], number: int) -> list[float]:
        """A COCO result as image number, x, y, width, height in pixels, score, category number."""
        where = f"detection {number} of the results"
        image, category = (
            self.image(result.get("image_id"), where),
            self.category(result.get("category_id"), where),
        )
        score = result.get("score")
        if score is None or not math.isfinite(score):
            raise InputError(f"{where}: score is {score!r}; give a finite number")
        return [float(image), *_box(result, where), float(score), float(category)]


def read_ground_truth(annotations: str | Path | dict) -> GroundTruth:
    """Reads a COCO annotation file, or takes its content, and changes neither.

    Without `iscrowd` an object is no crowd, without `area` its area is that of its box. Annotation ids are given
    anew: an evaluation takes 0 for "not matched", and a user's ids may repeat. Raises InputError with the file,
    the id and the field of what is wrong.
    """
    if isinstance(annotations, dict):
        source, content = "the annotations", annotations
    else:
        source, content = (
            str(annotations),
            read_json(Path(annotations), "COCO file", "export it again"),
        )
    for section in ("images", "annotations", "categories"):
        if not isinstance(content.get(section), list):
            raise InputError(f"{source}: the list {section!r} is missing; COCO annotations need it")
    images, categories = (
        _numbers(content["images"], "image", source),
        _numbers(content["categories"], "category", source),
    )
    names = _names(content["categories"], categories)
    dataset = {
        "images": [{"id": number} for number in images.values()],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [],
    }
    truth = GroundTruth(source, images, categories, names, dataset)
    dataset["annotations"] += [
        _object(entry, truth, number) for number, entry in enumerate(content["annotations"], 1)
    ]
    return truth


def _numbers(entries: list[dict], kind: str, source: str) -> dict[Any, int]:
    """Numbers ids from 0 in ascending order."""
    if not entries:
        raise InputError(f"{source}: there is no {kind} to evaluate; check the file and the split")
    uses: Counter[Any] = Counter(entry.get("id") for entry in entries)
    wrong = [identity for identity, times in uses.items() if identity is None or times > 1]
    if wrong:
        raise InputError(
            f"{source}: {kind} id {wrong[0]!r} is repeated or missing; give every {kind} its own id"
        )
    return {identity: number for number, identity in enumerate(sorted(uses))}


def _names(entries: list[dict], categories: dict[Any, int]) -> list[str]:
    names = {entry["id"]: str(entry.get("name", entry["id"])) for entry in entries}
    uses = Counter(names.values())
    return [names[key] if uses[names[key]] == 1 else f"{names[key]} ({key})" for key in categories]


def _object(entry: dict[str, Any], truth: GroundTruth, number: int) -> dict[str, Any]:
    where = f"{truth.source}: annotation {entry.get('id', number)!r}"
    box, area = _box(entry, where), entry.get("area")
    return {
        "id": number,
        "image_id": truth.image(entry.get("image_id"), where),
        "category_id": truth.category(entry.get("category_id"), where),
        "bbox": box,
        "area": box[2] * box[3] if area is None else float(area),
        "iscrowd": int(entry.get("iscrowd") or 0),
    }


def _box(entry: dict[str, Any], where: str) -> list[float]:
    box = entry.get("bbox")
    if box is None or len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise InputError(
            f"{where}: bbox is {box!r}; give four finite numbers x, y, width, height in pixels"
        )
    return [float(value) for value in box]
