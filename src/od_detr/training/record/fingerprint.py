"""What a run is trained on, in a few values that show whether it changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from od_detr.data.annotations import Annotations
from od_detr.data.dataset import CocoDataset


def fingerprint(train: CocoDataset, val: CocoDataset) -> dict[str, Any]:
    """The classes, and the images and boxes of both sets, by the name that messages give them.

    Image files are not read: the names, ids and order of the images count, and every box.
    """
    known: dict[str, Any] = {"class": list(train.classes), "category id": list(train.category_ids)}
    for split, dataset in (("training", train), ("validation", val)):
        found = dataset.annotations
        known |= {
            f"number of {split} images": len(dataset),
            f"order of {split} images": _images(found),
            f"boxes of the {split} images": _boxes(found),
        }
    return known


def same_validation(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two fingerprints agree in what validations of both can be compared for: the classes,
    and the images and boxes of the validation set.
    """
    return all(
        before.get(name, value) == value for name, value in now.items() if "training" not in name
    )


def what_changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first value of two fingerprints that differs, in words; empty if none does."""
    for name, value in now.items():
        was = before.get(name, value)
        if was == value:
            continue
        if isinstance(value, list):
            return _entry_changed(name, was, value)
        if isinstance(value, int):
            return f"the {name} was {was} and is {value}"
        return f"the {name} changed"
    return ""


def _entry_changed(name: str, before: list[Any], now: list[Any]) -> str:
    pairs = enumerate(zip_longest(before, now, fillvalue="missing"))
    place, (was, is_) = next((place, pair) for place, pair in pairs if pair[0] != pair[1])
    return f"{name} {place + 1} of {len(now)} was {was} and is {is_}"


def _images(found: Annotations) -> str:
    digest = hashlib.sha256(found.image_ids.tobytes())
    digest.update(found.names.ends.tobytes())
    digest.update(found.names.data.tobytes())
    return digest.hexdigest()


def _boxes(found: Annotations) -> str:
    digest = hashlib.sha256()
    for array in (found.starts, found.boxes_xywh, found.labels, found.crowd):
        digest.update(array.tobytes())
    return digest.hexdigest()
