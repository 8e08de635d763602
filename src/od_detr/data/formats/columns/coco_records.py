"""The records of a COCO file that was read whole: each is checked, and what is wrong becomes a
finding.

This is the careful way, taken for files that `coco_stream` does not understand and for content in
memory.
"""

from __future__ import annotations

import json
import math
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from od_detr.data.annotations import LARGEST
from od_detr.data.findings import Finding, error, limited, warning

SECTIONS = {"images": "image", "annotations": "annotation", "categories": "category"}


@dataclass(frozen=True)
class CocoTable:
    """The three lists of a COCO file as flat columns.

    A missing file name is "", a missing size 0, a missing area NaN and a missing annotation id -1.
    """

    image_ids: Int64[np.ndarray, " I"]
    file_names: list[str]
    sizes: Int64[np.ndarray, "I 2"]
    box_images: Int64[np.ndarray, " N"]
    box_categories: Int64[np.ndarray, " N"]
    boxes_xywh: Float64[np.ndarray, "N 4"]
    crowd: Bool[np.ndarray, " N"]
    area: Float64[np.ndarray, " N"]
    record_ids: Int64[np.ndarray, " N"]
    places: Int64[np.ndarray, " N"]
    categories: list[tuple[int, str, str]]


class _Record(NamedTuple):
    """One JSON object of the file, which records what is wrong with it."""

    source: str
    kind: str
    place: int
    values: dict[str, Any]
    findings: list[Finding]

    @property
    def name(self) -> str:
        if type(self.values.get("id")) is int:
            return f"{self.kind} {reprlib.repr(self.values['id'])}"
        return f"{self.kind} number {self.place}"

    def wrong(self, field_name: str, problem: str, fix: str, code: str | None = None) -> None:
        # An id that is wrong cannot name the record.
        record = f"{self.kind} number {self.place}" if field_name == "id" else self.name
        code = code or f"{self.kind}-{field_name.strip(chr(39))}"
        self.findings.append(error(code, self.source, record, f"{field_name} {problem}", fix))

    def take(self, field_name: str) -> Any:
        if field_name not in self.values:
            self.wrong(f"'{field_name}'", "is missing", "add it")
        return self.values.get(field_name)

    def integer(self, field_name: str) -> int | None:
        value = self.take(field_name)
        if type(value) is int and abs(value) < 2**63:
            return value
        if field_name in self.values:
            self.wrong(field_name, f"{reprlib.repr(value)} is not an integer", "write an integer")
        return None

    def text(self, field_name: str) -> str:
        value = self.take(field_name)
        if isinstance(value, str) and value:
            return value
        if field_name in self.values:
            self.wrong(field_name, f"{reprlib.repr(value)} is not a text", "write a text")
        return ""

    def box(self) -> list[float] | None:
        """The four numbers x, y, width, height of `bbox`."""
        value = self.take("bbox")
        if "bbox" not in self.values:
            return None
        if (
            not isinstance(value, (list, tuple))
            or len(value) != 4
            or any(type(part) not in (int, float) for part in value)
        ):
            problem = f"{reprlib.repr(value)} is not four numbers"
            self.wrong("bbox", problem, "write [x, y, width, height]")
            return None
        # Unlike math.isfinite, a comparison accepts integers too large for a float; NaN fails it.
        if not all(abs(part) < LARGEST for part in value):
            problem = f"{reprlib.repr(value)} is not finite"
            self.wrong("bbox", problem, "write finite pixel coordinates")
            return None
        return [float(part) for part in value]

    def crowd(self) -> bool | None:
        value = self.values.get("iscrowd")
        if value is None or value in (0, 1):
            return bool(value)
        self.wrong("iscrowd", f"{reprlib.repr(value)} is neither 0 nor 1", "write 0 or 1")
        return None

    def area(self) -> float:
        """The area, or NaN where the file has none that makes sense: then the box's counts."""
        value = self.values.get("area")
        if value is None:
            return math.nan
        if type(value) in (int, float) and 0 <= value < LARGEST:
            return float(value)
        self.findings.append(
            warning(
                "annotation-area",
                self.source,
                self.name,
                f"area {reprlib.repr(value)} is not a number of at least 0",
                "write the object's area; that of its box is used",
            )
        )
        return math.nan


def _section(
    document: dict[str, Any], key: str, source: str, findings: list[Finding]
) -> list[_Record]:
    """The records of a list of the document; what is wrong with the list is added to `findings`."""
    values = document.get(key)
    if not isinstance(values, list):
        problem = f"'{key}' is missing"
        if key in document:
            problem = f"'{key}' is not a list but {reprlib.repr(values)}"
        fix = "a COCO file lists its images, annotations and categories"
        findings.append(error("section", source, "", problem, fix))
        return []
    records = []
    for place, value in enumerate(values):
        if isinstance(value, dict):
            records.append(_Record(source, SECTIONS[key], place, value, findings))
            continue
        record = f"{SECTIONS[key]} number {place}"
        problem = f"{reprlib.repr(value)} is not an object"
        findings.append(error("record", source, record, problem, f"correct '{key}'"))
    return records


def table_of(document: dict[str, Any], source: str | Path) -> tuple[CocoTable, list[Finding]]:
    """The columns of a COCO document, and what is wrong with records that were left out of them."""
    findings: list[Finding] = []

    def section(key: str) -> list[_Record]:
        return _section(document, key, str(source), findings)

    categories = []
    for record in section("categories"):
        identity, name = record.integer("id"), record.text("name")
        if identity is not None:
            parent = record.values.get("supercategory")
            parent = parent if isinstance(parent, str) else ""
            categories.append((identity, name, parent))
    images = [
        (identity, record.text("file_name"), record.integer("height"), record.integer("width"))
        for record in section("images")
        if (identity := record.integer("id")) is not None
    ]
    rows = [row for record in section("annotations") if (row := _box_row(record)) is not None]
    return _table(images, rows, categories), limited(findings)


def _box_row(record: _Record) -> tuple[Any, ...] | None:
    image, category = record.integer("image_id"), record.integer("category_id")
    box, crowd = record.box(), record.crowd()
    if image is None or category is None or box is None or crowd is None:
        return None
    known = record.values.get("id")
    known = known if type(known) is int and 0 <= known < 2**63 else -1
    return (image, category, box, crowd, record.area(), known, record.place)


def _table(
    images: list[tuple[Any, ...]],
    rows: list[tuple[Any, ...]],
    categories: list[tuple[int, str, str]],
) -> CocoTable:
    def column(place: int, kind: type) -> np.ndarray:
        return np.array([row[place] for row in rows], dtype=kind)

    sizes = [(height or 0, width or 0) for _, _, height, width in images]
    return CocoTable(
        np.array([image[0] for image in images], dtype=np.int64),
        [image[1] for image in images],
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
        column(0, np.int64),
        column(1, np.int64),
        column(2, np.float64).reshape(-1, 4),
        column(3, np.bool_),
        column(4, np.float64),
        column(5, np.int64),
        column(6, np.int64),
        categories,
    )


def repeated_keys(text: str, source: str | Path) -> list[Finding]:
    """Objects in which a key stands twice: JSON readers silently take one of the two values."""
    found: list[Finding] = []

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            record = f"object {reprlib.repr(values['id'])}" if "id" in values else ""
            problem = f"key '{twice}' is there twice"
            found.append(error("repeated-key", source, record, problem, "keep one of them"))
        return values

    json.loads(text, object_pairs_hook=checked)
    return limited(found)
