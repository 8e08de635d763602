"""COCO annotation files: read once, checked whole, kept as flat arrays.

Everything that can be known to be wrong without decoding an image is an `InputError` here, before any
training starts.
"""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from od_detr.errors import InputError
from od_detr.files import read_json

# COCO rounds its coordinates to a hundredth of a pixel, so a box may overshoot by that much in good faith.
ROUNDING = 0.02


@dataclass(frozen=True)
class Dropped:
    """How many boxes were left out or changed when a data set was opened."""

    crowd: int = 0
    degenerate: int = 0
    clipped: int = 0

    def __str__(self) -> str:
        return (
            f"{self.crowd} crowd boxes and {self.degenerate} boxes without area dropped, "
            f"{self.clipped} boxes clipped to their image"
        )


@dataclass(frozen=True)
class Annotations:
    """The images and boxes of a COCO file, in the file's order of images.

    `boxes_xyxy` are in pixels inside their image, those of image i being ``starts[i]:starts[i + 1]``. Flat
    arrays, unlike lists of dicts, are shared by data-loading workers instead of being copied into each.
    `category_ids[label]` and `classes[label]` lead from the contiguous labels back to the file.
    """

    file: Path
    image_ids: tuple[int, ...]
    paths: tuple[str, ...]
    sizes: Int64[np.ndarray, "I 2"]
    boxes_xyxy: Float32[np.ndarray, "N 4"]
    labels: Int64[np.ndarray, " N"]
    starts: Int64[np.ndarray, " I1"]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    dropped: Dropped


class _Entry(NamedTuple):
    """One JSON object of the file, that knows how to complain about itself."""

    file: Path
    kind: str
    place: int
    values: dict[str, Any]

    def wrong(self, field: str, problem: str, mend: str) -> InputError:
        known = "id" in self.values and field != "id"
        name = (
            f"{self.kind} {reprlib.repr(self.values['id'])}"
            if known
            else f"{self.kind} number {self.place}"
        )
        return InputError(f"{self.file}: {name}: {field} {problem}; {mend}")

    def take(self, field: str) -> Any:
        if field not in self.values:
            raise self.wrong(f"'{field}'", "is missing", "add it")
        return self.values[field]

    def integer(self, field: str) -> int:
        value = self.take(field)
        if type(value) is not int or abs(value) >= 2**63:
            raise self.wrong(field, f"{reprlib.repr(value)} is not an integer", "write an integer")
        return value

    def text(self, field: str) -> str:
        value = self.take(field)
        if not isinstance(value, str) or not value:
            raise self.wrong(field, f"{reprlib.repr(value)} is not a text", "write a text")
        return value

    def box(self) -> tuple[float, float, float, float]:
        """The four numbers x, y, width, height of `bbox`."""
        value = self.take("bbox")
        if (
            not isinstance(value, list)
            or len(value) != 4
            or any(type(part) not in (int, float) for part in value)
        ):
            raise self.wrong(
                "bbox", f"{reprlib.repr(value)} is not four numbers", "write [x, y, width, height]"
            )
        # A comparison, unlike math.isfinite, also stands integers too large for any float; NaN fails it.
        if not all(abs(part) < 1e300 for part in value):
            raise self.wrong(
                "bbox", f"{reprlib.repr(value)} is not finite", "write finite pixel coordinates"
            )
        x, y, width, height = map(float, value)
        if width < 0 or height < 0:
            raise self.wrong(
                "bbox",
                f"{value} has a negative size",
                "write [x, y, width, height], not two corners",
            )
        return x, y, width, height


def read_annotations(
    file: Path,
    folders: Sequence[Path],
    classes: Sequence[str] | None = None,
    category_ids: Sequence[int] | None = None,
) -> Annotations:
    """Reads and checks a COCO file whose images lie below the first of `folders` that has them.

    Args:
        file: JSON with the lists `images`, `annotations` and `categories`.
        folders: where a `file_name` is looked up, in this order.
        classes: names the labels stand for, where they are given by another split or by a trained detector.
            Without `category_ids` the file's categories are matched with them by name.
        category_ids: the category id of each of these classes.

    Raises:
        InputError: anything in the file is missing, malformed, contradictory, or points to no image.
    """
    document = read_json(file, "COCO file", "export it again")
    categories = _identified(_entries(file, document, "categories", "category"))
    images = _identified(_entries(file, document, "images", "image"))
    boxes = _identified(_entries(file, document, "annotations", "annotation"))
    classes, category_ids = _settle_classes(file, categories, classes, category_ids)

    paths = tuple(_find_image(entry, folders) for entry in images.values())
    sizes = np.array([_size(entry) for entry in images.values()], dtype=np.int64)
    rows, owners, labels, crowd = _read_boxes(boxes, images, category_ids)
    boxes_xyxy, clipped = _clip(rows, sizes[owners])
    solid = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(1)
    order = np.flatnonzero(solid)[np.argsort(owners[solid], kind="stable")]
    starts = np.searchsorted(owners[order], np.arange(len(images) + 1))
    dropped = Dropped(crowd, int((~solid).sum()), int((clipped & solid).sum()))
    return Annotations(
        file,
        tuple(images),
        paths,
        sizes,
        boxes_xyxy[order],
        labels[order],
        starts,
        classes,
        category_ids,
        dropped,
    )


def _entries(file: Path, document: dict[str, Any], key: str, kind: str) -> list[_Entry]:
    values = document.get(key)
    if not isinstance(values, list):
        problem = (
            "is missing" if key not in document else f"is not a list but {reprlib.repr(values)}"
        )
        raise InputError(
            f"{file}: '{key}' {problem}; a COCO file lists its images, annotations and categories"
        )
    if not values and kind != "annotation":
        raise InputError(f"{file}: '{key}' is empty; list at least one {kind}")
    for place, entry in enumerate(values):
        if not isinstance(entry, dict):
            raise InputError(
                f"{file}: {kind} number {place}: {reprlib.repr(entry)} is not an object; mend '{key}'"
            )
    return [_Entry(file, kind, place, entry) for place, entry in enumerate(values)]


def _identified(entries: list[_Entry]) -> dict[int, _Entry]:
    found: dict[int, _Entry] = {}
    for entry in entries:
        if found.setdefault(entry.integer("id"), entry) is not entry:
            raise entry.wrong(
                "id", f"{entry.values['id']} is there twice", f"give each {entry.kind} its own id"
            )
    return found


def _settle_classes(
    file: Path,
    categories: dict[int, _Entry],
    classes: Sequence[str] | None,
    category_ids: Sequence[int] | None,
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The names and category ids of the labels: the file's own in order of id, or the given ones if they fit."""
    ids: dict[str, int] = {}
    for category, entry in categories.items():
        name = entry.text("name")
        if (first := ids.setdefault(name, category)) != category:
            raise entry.wrong(
                "name",
                f"{name!r} is that of category {first} too",
                "give each category its own name",
            )
    names = {category: name for name, category in ids.items()}
    if category_ids is None:
        if classes is None:
            return tuple(names[category] for category in sorted(names)), tuple(sorted(names))
        absent = [name for name in classes if name not in ids]
        if absent:
            raise InputError(
                f"{file}: categories: no category is named {absent[0]!r}; use the class names {', '.join(classes)}"
            )
        return tuple(classes), tuple(ids[name] for name in classes)
    expected = dict(
        zip(category_ids, classes or [names.get(i, str(i)) for i in category_ids], strict=True)
    )
    for category, entry in categories.items():
        if expected.get(category, names[category]) != names[category]:
            problem = f"is {names[category]!r} here but {expected[category]!r} in the training set"
            raise entry.wrong("name", problem, "use the same categories in every split")
    return tuple(expected.values()), tuple(expected)


def _find_image(entry: _Entry, folders: Sequence[Path]) -> str:
    name = entry.text("file_name")
    shown = reprlib.repr(name)
    if name.startswith("/") or PureWindowsPath(name).drive or ".." in re.split(r"[/\\]", name):
        raise entry.wrong(
            "file_name", f"{shown} leads out of the image folder", "write a path below that folder"
        )
    for folder in folders:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    places = " or ".join(str(folder) for folder in folders)
    raise entry.wrong(
        "file_name", f"{shown} is no file below {places}", "add the image or remove its entry"
    )


def _size(entry: _Entry) -> tuple[int, int]:
    height, width = entry.integer("height"), entry.integer("width")
    if height < 1 or width < 1:
        raise entry.wrong(
            "width and height", f"{width} and {height} are not positive", "write the size in pixels"
        )
    return height, width


def _read_boxes(
    boxes: dict[int, _Entry], images: dict[int, _Entry], category_ids: Sequence[int]
) -> tuple[Float64[np.ndarray, "N 4"], Int64[np.ndarray, " N"], Int64[np.ndarray, " N"], int]:
    """The (x, y, width, height), image index and label of every box, and the number of crowd boxes left out."""
    label_of = {category: label for label, category in enumerate(category_ids)}
    index_of = {image: index for index, image in enumerate(images)}
    rows, owners, labels, crowd = [], [], [], 0
    for entry in boxes.values():
        image, category, row = entry.integer("image_id"), entry.integer("category_id"), entry.box()
        if image not in index_of:
            raise entry.wrong(
                "image_id", f"{image} is not among the images", "add the image or remove this box"
            )
        if category not in label_of:
            known = reprlib.repr(list(category_ids))
            raise entry.wrong(
                "category_id",
                f"{category} is not among {known}",
                "add the category or correct the id",
            )
        is_crowd = entry.values.get("iscrowd", 0)
        if is_crowd not in (0, 1):
            raise entry.wrong(
                "iscrowd", f"{reprlib.repr(is_crowd)} is neither 0 nor 1", "write 0 or 1"
            )
        if is_crowd:
            crowd += 1
            continue
        rows.append(row)
        owners.append(index_of[image])
        labels.append(label_of[category])
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return table, np.array(owners, dtype=np.int64), np.array(labels, dtype=np.int64), crowd


def _clip(
    rows: Float64[np.ndarray, "N 4"], sizes: Int64[np.ndarray, "N 2"]
) -> tuple[Float32[np.ndarray, "N 4"], Bool[np.ndarray, " N"]]:
    """Corners inside the image, and which boxes reached outside it."""
    limits = sizes[:, [1, 0, 1, 0]].astype(np.float64)
    corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], 1)
    inside = np.clip(corners, 0, limits)
    return inside.astype(np.float32), np.abs(corners - inside).max(1, initial=0) > ROUNDING
