"""COCO annotation files: read once, checked whole, for training and evaluation alike."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from od_detr.data.annotations import Annotations, Categories, Strings
from od_detr.data.cache import cached
from od_detr.data.findings import Finding, error, limited
from od_detr.data.formats.columns.coco_records import CocoTable, repeated_keys, table_of
from od_detr.data.formats.columns.coco_stream import Unusual, streamed_table
from od_detr.data.preparation.units import box_findings
from od_detr.errors import InputError
from od_detr.files import read_json

LARGEST_FILE = 16 * 2**30  # bytes of an annotation file


def read_coco(file: Path) -> Annotations:
    """Reads a COCO file. What is wrong with its records is in the findings of the result.

    A large file is decoded once and kept in the user's cache directory under the digest of its
    content. Image files are not looked up, see `od_detr.data.preparation.placing`.

    Raises:
        InputError: the file cannot be read or holds no JSON object.
    """
    file = Path(file)
    if file.exists() and not file.is_file():
        raise InputError(f"{file}: is not a regular file; give a COCO file")
    return cached(file, decoded)


def decoded(file: Path) -> Annotations:
    """`read_coco` without the cache."""
    try:
        return annotations_of(streamed_table(file), file)
    except (Unusual, OSError):
        document = read_json(file, "COCO file", "export it again", LARGEST_FILE)
    repeated = repeated_keys(file.read_text(encoding="utf-8-sig"), file)
    table, findings = table_of(document, file)
    return annotations_of(table, file, [*repeated, *findings])


def from_document(document: dict[str, Any], source: str = "the annotations") -> Annotations:
    """Reads the content of a COCO file; `source` names it in messages."""
    table, findings = table_of(document, source)
    return annotations_of(table, source, findings)


def annotations_of(
    table: CocoTable, source: str | Path, findings: list[Finding] | None = None
) -> Annotations:
    """Numbers images and categories, sorts the boxes by image, and checks what columns can show."""
    found = list(findings or [])
    order = np.argsort(table.image_ids, kind="stable")
    categories = sorted(table.categories)
    category_ids = np.array([category[0] for category in categories], dtype=np.int64)
    found += _repeated("image", table.image_ids, source)
    found += _repeated("category", np.array([c[0] for c in table.categories], np.int64), source)
    found += _empty(table, source, found)
    images, known_image = _positions(table.box_images, table.image_ids, order)
    labels, known_category = _positions(
        table.box_categories, category_ids, np.arange(len(category_ids))
    )
    negative = np.asarray((table.boxes_xywh[:, 2:] < 0).any(1))
    found += _wrong_boxes(table, source, ~known_image, ~known_category, negative, category_ids)
    sound = known_image & known_category & ~negative
    rows = np.flatnonzero(sound)[np.argsort(images[sound], kind="stable")]
    starts = np.searchsorted(images[rows], np.arange(len(order) + 1)).astype(np.int64)
    boxes = table.boxes_xywh[rows]
    area = table.area[rows]
    absent = np.isnan(area)
    area[absent] = boxes[absent, 2] * boxes[absent, 3]
    made = Annotations(
        Path(source),
        "coco",
        table.image_ids,
        Strings.of(table.file_names),
        Strings.of([]),
        table.sizes,
        starts,
        boxes,
        labels[rows],
        table.crowd[rows],
        area,
        table.record_ids[rows],
        table.places[rows],
        Categories(
            tuple(each[0] for each in categories),
            tuple(each[1] for each in categories),
            tuple(each[2] for each in categories),
        ),
        tuple(limited(found)),
    )
    return made.with_findings(box_findings(made))


def _positions(
    wanted: Int64[np.ndarray, " N"],
    ids: Int64[np.ndarray, " I"],
    order: Int64[np.ndarray, " I"],
) -> tuple[np.ndarray, np.ndarray]:
    """Where each wanted id stands in `ids`, sorted by `order`, and whether it does."""
    if not len(ids):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    ascending = ids[order]
    place = np.minimum(np.searchsorted(ascending, wanted), len(ids) - 1)
    return order[place], ascending[place] == wanted


def _repeated(kind: str, ids: Int64[np.ndarray, " I"], source: str | Path) -> list[Finding]:
    order = np.argsort(ids, kind="stable")
    again = np.sort(order[1:][np.diff(ids[order]) == 0])
    return [
        error(
            f"{kind}-id",
            source,
            f"{kind} number {place}",
            f"id {ids[place]} is there twice",
            f"give each {kind} its own id",
        )
        for place in again.tolist()
    ]


def _empty(table: CocoTable, source: str | Path, findings: list[Finding]) -> list[Finding]:
    if any(finding.code in ("section", "record") for finding in findings):
        return []
    lists = (("images", "image", table.image_ids), ("categories", "category", table.categories))
    return [
        error("section", source, "", f"'{key}' is empty", f"list at least one {kind}")
        for key, kind, entries in lists
        if not len(entries)
    ]


def _wrong_boxes(
    table: CocoTable,
    source: str | Path,
    image_unknown: np.ndarray,
    category_unknown: np.ndarray,
    negative: np.ndarray,
    category_ids: np.ndarray,
) -> list[Finding]:
    def name(row: int) -> str:
        known = int(table.record_ids[row])
        return f"annotation {known}" if known >= 0 else f"annotation number {table.places[row]}"

    known = reprlib.repr(category_ids.tolist())
    found = [
        error(
            "annotation-image_id",
            source,
            name(row),
            f"image_id {table.box_images[row]} is not among the images",
            "add the image or remove this box",
        )
        for row in np.flatnonzero(image_unknown).tolist()
    ]
    found += [
        error(
            "annotation-category_id",
            source,
            name(row),
            f"category_id {table.box_categories[row]} is not among {known}",
            "add the category or correct the id",
        )
        for row in np.flatnonzero(category_unknown).tolist()
    ]
    found += [
        error(
            "annotation-bbox",
            source,
            name(row),
            f"bbox {table.boxes_xywh[row].tolist()} has a negative size",
            "write [x, y, width, height], not two corners",
        )
        for row in np.flatnonzero(negative).tolist()
    ]
    return found
