"""Writes a data set, as it was read, in COCO or YOLO format."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from od_detr.data.annotations import Annotations
from od_detr.data.findings import raise_errors
from od_detr.data.folders import find_readers
from od_detr.data.formats.choices import ALL, Choices
from od_detr.data.preparation.classes import given_classes, own_classes
from od_detr.data.writing.coco_writer import write_coco
from od_detr.data.writing.folder import new_folder, refuse_taken
from od_detr.data.writing.names import below_common, refuse_overlooked, yolo_names
from od_detr.errors import InputError
from od_detr.files import atomic_write, writing
from od_detr.plain_yaml import dump_yaml

Target = Literal["coco", "yolo"]


@dataclass(frozen=True)
class Written:
    """What was written of one split.

    Attributes:
        images: number of image files, or of entries in COCO.
        boxes: number of boxes.
        classes: number of classes.
        crowds: boxes that were left out, as YOLO knows no crowds.
        joined: entries that were joined with another entry of the same file, which YOLO needs.
        renamed: images that have another name, so that YOLO finds their label files.
    """

    images: int
    boxes: int
    classes: int
    crowds: int
    joined: int
    renamed: int


def convert_data(
    data: Path, to: Target, output: Path, choices: Choices | None = None, link: bool = False
) -> dict[str, Written]:
    """Writes all splits of a data set in another format and returns what was written of each.

    COCO goes to ``annotations/instances_train.json`` and ``images/train``, YOLO to ``data.yaml``,
    ``images/train`` and ``labels/train``; classes have the same numbers in all splits. The source
    is never changed. Boxes are written as they are, unclipped. YOLO knows no crowds, so they are
    left out there. What was written is read again and compared.

    Args:
        data: the data set's folder, in any layout that is read.
        to: the format to write.
        output: a folder that is empty or not there. After an error it is as it was before.
        choices: what the user chose about the data.
        link: whether images are hard links instead of copies; on another file system they are
            copied all the same.

    Raises:
        InputError: the data has errors (`details` lists them), `output` holds something or cannot
            be written, or the format cannot hold the data.
    """
    refuse_taken(output, "--output")
    splits, made = _read(data, choices or Choices()), {}
    with writing(output), new_folder(output) as folder:
        kept: dict[str, tuple[Annotations, list[str]]] = {}
        for split, found in splits.items():
            held = _for_yolo(found) if to == "yolo" else found
            _, names = below_common(held.paths)
            final = yolo_names(names) if to == "yolo" else names
            if to == "yolo":
                refuse_overlooked(held.paths, final)
            kept[split] = held, final
            made[split] = Written(
                len(held.names),
                len(held.labels),
                len(held.classes),
                int(found.crowd.sum() - held.crowd.sum()),
                len(found.names) - len(held.names),
                sum(old != new for old, new in zip(names, final, strict=True)),
            )
            _write_split(held, final, folder, "" if split == ALL else split, to, link)
        if to == "yolo":
            _write_class_names(splits, folder)
        _check(kept, folder, output, to)
    return made


def _read(data: Path, choices: Choices) -> dict[str, Annotations]:
    """All splits, with the classes of the first and their ids."""
    splits: dict[str, Annotations] = {}
    for split, read in find_readers(data, choices).items():
        first = next(iter(splits.values()), None)
        found = read()
        if first is None:
            splits[split] = own_classes(found)
        else:
            given = given_classes(found, first.classes)
            splits[split] = replace(given, categories=first.categories)
    raise_errors(finding for each in splits.values() for finding in each.findings)
    return splits


def _for_yolo(annotations: Annotations) -> Annotations:
    """One image a file, with the boxes of all its entries, each once; no crowds."""
    first: dict[str, int] = {}
    places = [first.setdefault(path, image) for image, path in enumerate(annotations.paths)]
    place = np.array(places, dtype=np.int64)
    own = annotations.owners
    owners = place[own]
    kept = ~annotations.crowd
    # Boxes of a file with several entries: a later entry may repeat those of an earlier one.
    known: dict[tuple[float, ...], int] = {}
    for row in np.flatnonzero(np.isin(owners, owners[owners != own]) & kept).tolist():
        box = (owners[row], annotations.labels[row], *annotations.boxes_xywh[row].tolist())
        kept[row] = known.setdefault(box, own[row]) == own[row]
    rows = np.argsort(owners, kind="stable")
    rows = rows[kept[rows]]
    starts = np.searchsorted(owners[rows], np.arange(len(place) + 1)).astype(np.int64)
    return annotations.with_boxes(rows, starts).selected(np.unique(place))


def _write_split(
    annotations: Annotations, names: Sequence[str], folder: Path, place: str, to: Target, link: bool
) -> None:
    for path, name in zip(annotations.paths, names, strict=True):
        _place_image(Path(path), folder / "images" / place / name, link)
    if to == "yolo":
        _write_labels(annotations, names, folder / "labels" / place)
        return
    file = folder / "annotations" / f"instances_{place or 'default'}.json"
    file.parent.mkdir(exist_ok=True)
    write_coco(annotations, file, names)


def _place_image(image: Path, target: Path, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return  # a file with several entries
    try:
        if link:
            os.link(os.path.realpath(image), target)  # not a link of another folder
            return
    except OSError:  # another file system
        target.unlink(missing_ok=True)
    try:
        source = image.open("rb")
    except OSError as error:
        raise InputError(f"{image}: {error.strerror}; allow reading it") from error
    with source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)


def _write_labels(annotations: Annotations, names: Sequence[str], folder: Path) -> None:
    """A label file for each image; one without objects has an empty file."""
    for image, name in enumerate(names):
        high, wide = annotations.sizes[image].tolist()
        rows = slice(int(annotations.starts[image]), int(annotations.starts[image + 1]))
        lines = [
            f"{label} {(x + w / 2) / wide} {(y + h / 2) / high} {w / wide} {h / high}\n"
            for label, (x, y, w, h) in zip(
                annotations.labels[rows].tolist(),
                annotations.boxes_xywh[rows].tolist(),
                strict=True,
            )
        ]
        file = (folder / name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines))


def _write_class_names(splits: Mapping[str, Annotations], output: Path) -> None:
    names = list(next(iter(splits.values())).classes)
    if ALL in splits:
        _write_text(output / "classes.txt", "".join(f"{name}\n" for name in names))
        return
    content = {split: f"images/{split}" for split in splits} | {"names": names}
    _write_text(output / "data.yaml", dump_yaml(content))


def _write_text(file: Path, text: str) -> None:
    with atomic_write(file) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def _check(
    kept: Mapping[str, tuple[Annotations, list[str]]], folder: Path, output: Path, to: Target
) -> None:
    """Reads what was written as anyone will.

    Raises:
        InputError: something is not as it was.
    """
    readers = find_readers(folder)
    for split, (written, names) in kept.items():
        read = readers[split]() if split in readers else written.selected(np.zeros(0, np.int64))
        found = {
            "images": (len(written.names), len(read.names)),
            "boxes": (len(written.labels), len(read.labels)),
            "classes": (written.classes, read.classes),
        }
        wrong = next((what for what, (old, new) in found.items() if old != new), None)
        place = folder / "images" / ("" if split == ALL else split)
        reason = ""
        if bad := next((each for each in read.findings if each.severity == "error"), None):
            source = dict(zip((str(place / name) for name in names), written.paths, strict=True))
            named = replace(bad, source=source.get(bad.source, bad.source))
            reason = str(named).replace(str(folder), str(output))
        if wrong is not None:
            raise InputError(
                f"--output {output}: {split}: {to.upper()} cannot hold these {wrong} "
                f"({found[wrong][0]} would become {found[wrong][1]})"
                + (f": {reason}; see od-detr doctor" if reason else "; correct them")
            )
        if reason:
            raise InputError(f"--output {output}: {split}: {reason}; see od-detr doctor")
        if to == "yolo":  # coordinates are shares of the file's own size
            sizes = dict(zip(read.paths, read.sizes.tolist(), strict=True))
            for name, entry, path in zip(names, written.sizes.tolist(), written.paths, strict=True):
                size = sizes[str(place / name)]
                if size != entry:
                    raise InputError(
                        f"{path}: is {size[1]} x {size[0]} pixels, but its entry says {entry[1]} x "
                        f"{entry[0]}; correct the entry, or see od-detr doctor --fix"
                    )
