"""Writes annotations as a COCO file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from od_detr.data.annotations import Annotations
from od_detr.files import atomic_write


def write_coco(annotations: Annotations, file: Path, file_names: Sequence[str]) -> None:
    """Writes a COCO file, whole or not at all.

    Args:
        annotations: images, boxes and classes.
        file: the JSON file; its folder must exist.
        file_names: `file_name` of each image.
    """
    with atomic_write(file) as partial, partial.open("w", encoding="utf-8") as opened:
        json.dump(coco_document(annotations, file_names), opened)


def coco_document(annotations: Annotations, file_names: Sequence[str]) -> dict[str, Any]:
    """The content of a COCO file. Ids of images and boxes are kept where each is there once."""
    images = _numbers(annotations.image_ids)
    columns = zip(
        _numbers(annotations.record_ids).tolist(),
        images[annotations.owners].tolist(),
        annotations.labels.tolist(),
        annotations.boxes_xywh.tolist(),
        annotations.area.tolist(),
        annotations.crowd.tolist(),
        strict=True,
    )
    sizes = annotations.sizes.tolist()
    categories = annotations.categories
    return {
        "images": [
            {"id": identity, "file_name": name, "height": height, "width": width}
            for identity, name, (height, width) in zip(
                images.tolist(), file_names, sizes, strict=True
            )
        ],
        "annotations": [
            {
                "id": identity,
                "image_id": image,
                "category_id": categories.ids[label],
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
            }
            for identity, image, label, box, area, crowd in columns
        ],
        "categories": [
            {"id": identity, "name": name, "supercategory": parent}
            for identity, name, parent in zip(
                categories.ids, categories.names, categories.parents, strict=True
            )
        ],
    }


def _numbers(ids: np.ndarray) -> np.ndarray:
    """These ids, or numbers from 1 if an id is absent or there twice."""
    sound = len(np.unique(ids)) == len(ids) and (ids >= 0).all()
    return ids if sound else np.arange(1, len(ids) + 1)
