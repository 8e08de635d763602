"""Finds how a folder of labelled images is laid out, and opens one split of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from od_detr.data.annotations import Annotations
from od_detr.data.formats.choices import ALL, HIDDEN, Choices, Readers
from od_detr.data.formats.coco_layout import coco_patterns, coco_readers, lone_coco_readers
from od_detr.data.formats.voc import voc_readers
from od_detr.data.formats.yolo_layout import YAML, yaml_readers, yolo_readers
from od_detr.data.headers.header import OF_FILES
from od_detr.data.preparation.classes import given_classes, merged, own_classes, subset
from od_detr.data.preparation.splitting import part_of
from od_detr.errors import InputError
from od_detr.options import DataOptions

Split = Literal["train", "val", "test"]
FORMATS = (coco_readers, yolo_readers, voc_readers, lone_coco_readers)
TRAINED = {"train", ALL}
WRAPPERS = 2  # folders that may lie around a data set, as archives are unpacked


def open_split(
    data: Path,
    split: Split,
    choices: Choices | None = None,
    classes: Sequence[str] | None = None,
) -> Annotations:
    """Reads one split of a data set, with image files looked up and labels numbered.

    A set without a validation split is divided by a hash of the file names; see `Choices`.

    Args:
        data: the data set's folder, in COCO, YOLO or Pascal VOC layout, or its YAML file.
        split: the part of it.
        choices: what the user chose about the data; None for the defaults.
        classes: the names that the labels stand for, where a training set or a detector gave them.

    Raises:
        InputError: there is no data set, no such split, or a file that cannot be read. Everything
            else that is wrong is in the findings of the result.
    """
    choices = choices or Choices()
    if split == "val" and choices.val_data is not None:
        annotations = _validation_folder(Path(choices.val_data), choices)
    else:
        annotations = _split_of(Path(data), split, choices)
    if choices.single_class:
        return merged(own_classes(annotations))
    if classes is not None:
        return given_classes(annotations, classes, choices.classes)
    own = own_classes(annotations)
    return subset(own, choices.classes) if choices.classes else own


def choices_of(options: DataOptions) -> Choices:
    """What the options of a run say about its data.

    Raises:
        InputError: `classes` names no class.
    """
    classes = tuple(name.strip() for name in options.classes or () if name.strip())
    if options.classes is not None and not classes:
        given = ",".join(options.classes)
        raise InputError(f"--classes {given!r}: names no class; leave it out for all")
    return Choices(
        options.val_fraction,
        options.group,
        options.val_data,
        classes,
        options.single_class,
        options.difficult,
        options.voc_origin,
    )


def _split_of(data: Path, split: Split, choices: Choices) -> Annotations:
    """The split; where there is none for validation, a part of the training images."""
    readers = find_readers(data, choices)
    whole = ALL if ALL in readers else "train"
    divided = split != "test" and whole in readers and "val" not in readers
    if not divided and split in readers:
        return readers[split]()
    if not divided:
        have = " and ".join(readers).replace(ALL, "one set without splits")
        fix = f"add a folder or file for {split}"
        raise InputError(f"{data}: no {split} split, only {have}; {fix}")
    annotations = readers[whole]()
    errors = [each for each in annotations.findings if each.severity == "error"]
    broken = any(each.code not in OF_FILES for each in errors)  # divided by the files' names
    if broken or choices.val_data is not None:
        return annotations
    return part_of(annotations, split, choices, folder_of(data))  # type: ignore[arg-type]


def _validation_folder(data: Path, choices: Choices) -> Annotations:
    """The validation split of a folder that is for validation alone, or all of it."""
    readers = find_readers(data, choices)
    for name in ("val", ALL, "test", "train"):
        if name in readers:
            return readers[name]()
    raise InputError(f"{data}: holds no annotations; give another folder to --val-data")


def folder_of(data: Path) -> Path:
    """The folder of a data set that is given as a folder or as its YAML file."""
    return data.parent if data.is_file() else data


def find_readers(data: Path, choices: Choices | None = None) -> Readers:
    """What reads each split of a data set; nothing is read yet.

    A set without splits has one named `ALL`. A format with a training split goes before one of
    which the folder has only other splits: a COCO file for validation may lie in a YOLO data set.
    A folder that holds nothing but the folder of a data set counts as that one.

    Args:
        data: the folder, or the YAML file of a data set in YOLO format.
        choices: what the user chose about the data; None for the defaults.

    Raises:
        InputError: `data` is neither, or holds no annotations in a known layout.
    """
    if data.is_file() and data.suffix.lower() in YAML:
        return yaml_readers(data)
    if not data.is_dir():
        kind = "file" if data.suffix.lower() in YAML else "folder"
        state = "is a file" if data.exists() else f"no such {kind}"
        raise InputError(
            f"{data}: {state}; give the data set's folder, or the YAML file of a YOLO data set. "
            "Data sets are not downloaded"
        )
    chosen, folder = choices or Choices(), data
    for _ in range(1 + WRAPPERS):
        if readers := _readers_of(folder, chosen):
            return readers
        inner = [path for path in folder.iterdir() if not path.name.startswith(HIDDEN)]
        folders = [path for path in inner if path.is_dir()]
        if len(folders) != 1:
            break
        folder = folders[0]
    names = ", ".join(coco_patterns("train")[:5:2])
    raise InputError(
        f"{data}: no annotations found; looked for COCO ({names}, ...), YOLO (data.yaml, or images "
        "and labels folders) and Pascal VOC (Annotations/*.xml); give the data set's folder, in a "
        "layout of docs/data.md"
    )


def _readers_of(folder: Path, choices: Choices) -> Readers:
    """The splits in the first format that fits, or in a later one that alone has a training split.

    What is wrong in a later format does not matter: the folder is for validation or test.
    """
    first: Readers = {}
    for readers_of in FORMATS:
        try:
            readers = readers_of(folder, choices)
        except InputError:
            if not first:
                raise
            continue
        if "train" in readers or (ALL in readers and not first):
            return readers
        first = first or readers
    return first
