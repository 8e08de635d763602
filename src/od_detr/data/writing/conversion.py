"""Writes a data set, as it was read, in COCO or YOLO format."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Literal

from od_detr.data.annotations import Annotations
from od_detr.data.findings import raise_errors
from od_detr.data.folders import find_readers
from od_detr.data.formats.choices import ALL, Choices
from od_detr.data.preparation.classes import given_classes, own_classes
from od_detr.errors import InputError
from od_detr.files import atomic_write

Target = Literal["coco", "yolo"]


def convert_data(
    data: Path, to: Target, output: Path, choices: Choices | None = None, link: bool = False
) -> dict[str, Annotations]:
    """Writes all splits of a data set in another format and returns them as they were read.

    COCO goes to ``annotations/instances_train.json`` and ``images/train``, YOLO to ``data.yaml``,
    ``images/train`` and ``labels/train``. The source is never changed. Boxes are written as they
    are, unclipped. YOLO knows no crowds, so they are left out there.

    Args:
        data: the data set's folder, in any layout that is read.
        to: the format to write.
        output: a folder that is empty or not there.
        choices: what the user chose about the data.
        link: whether images are hard links instead of copies; on another file system they are
            copied all the same.

    Raises:
        InputError: the data has errors (`details` lists them), or `output` holds something.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output {output}: is there already; give a new folder")
    splits = _read(data, choices or Choices())
    for split, found in splits.items():
        place = "" if split == ALL else split
        names = _names(found)
        _place_images(found, names, output / "images" / place, link)
        if to == "coco":
            file = "default" if split == ALL else split
            _write_coco(found, names, output / "annotations" / f"instances_{file}.json")
        else:
            _write_labels(found, names, output / "labels" / place)
    if to == "yolo":
        _write_class_names(splits, output)
    return splits


def _read(data: Path, choices: Choices) -> dict[str, Annotations]:
    """All splits, with the classes of the first."""
    splits: dict[str, Annotations] = {}
    for split, read in find_readers(data, choices).items():
        first = next(iter(splits.values()), None)
        found = read()
        splits[split] = own_classes(found) if first is None else given_classes(found, first.classes)
    raise_errors(finding for each in splits.values() for finding in each.findings)
    return splits


def _names(annotations: Annotations) -> list[str]:
    """The path of each image below the folder that all of them have in common."""
    paths = list(annotations.paths)
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [Path(path).relative_to(common).as_posix() for path in paths]


def _place_images(annotations: Annotations, names: list[str], folder: Path, link: bool) -> None:
    for path, name in zip(annotations.paths, names, strict=True):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            continue  # an image that is listed twice
        try:
            if link:
                os.link(path, target)
                continue
        except OSError:  # another file system
            target.unlink(missing_ok=True)
        try:
            shutil.copyfile(path, target)
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror}; free or allow it") from error


def _write_coco(annotations: Annotations, names: list[str], file: Path) -> None:
    sizes, ids = annotations.sizes.tolist(), annotations.image_ids.tolist()
    images = [
        {"id": identity, "file_name": name, "height": height, "width": width}
        for identity, name, (height, width) in zip(ids, names, sizes, strict=True)
    ]
    columns = zip(
        annotations.owners.tolist(),
        annotations.labels.tolist(),
        annotations.boxes_xywh.tolist(),
        annotations.area.tolist(),
        annotations.crowd.tolist(),
        strict=True,
    )
    # A class that a split does not list has no id there.
    known = [identity for identity in annotations.category_ids if identity >= 0]
    free = iter(range(max(known, default=0) + 1, 1 << 62))
    category_ids = [each if each >= 0 else next(free) for each in annotations.category_ids]
    boxes = [
        {
            "id": number,
            "image_id": ids[image],
            "category_id": category_ids[label],
            "bbox": box,
            "area": area,
            "iscrowd": int(crowd),
        }
        for number, (image, label, box, area, crowd) in enumerate(columns, 1)
    ]
    categories = [
        {"id": identity, "name": name}
        for identity, name in zip(category_ids, annotations.classes, strict=True)
    ]
    document = {"images": images, "annotations": boxes, "categories": categories}
    _write_text(file, json.dumps(document, ensure_ascii=False))


def _write_labels(annotations: Annotations, names: list[str], folder: Path) -> None:
    """A label file for each image; one without objects has an empty file."""
    for image, name in enumerate(names):
        high, wide = annotations.sizes[image].tolist()
        rows = slice(int(annotations.starts[image]), int(annotations.starts[image + 1]))
        lines = [
            f"{label} {(x + w / 2) / wide} {(y + h / 2) / high} {w / wide} {h / high}\n"
            for label, (x, y, w, h), crowd in zip(
                annotations.labels[rows].tolist(),
                annotations.boxes_xywh[rows].tolist(),
                annotations.crowd[rows].tolist(),
                strict=True,
            )
            if not crowd
        ]
        file = (folder / name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines))


def _write_class_names(splits: dict[str, Annotations], output: Path) -> None:
    import yaml

    names = list(next(iter(splits.values())).classes)
    if ALL in splits:
        _write_text(output / "classes.txt", "".join(f"{name}\n" for name in names))
        return
    content = {split: f"images/{split}" for split in splits} | {"names": names}
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    _write_text(output / "data.yaml", text)


def _write_text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as partial:
        partial.write_text(text, encoding="utf-8")
