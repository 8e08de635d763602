"""Writes a cleaned copy of the annotations, and a list of what was left out of it."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from od_detr.data.annotations import Annotations
from od_detr.data.formats.choices import ALL
from od_detr.data.preparation.classes import relabelled
from od_detr.data.writing.coco_writer import write_coco
from od_detr.data.writing.folder import new_folder, refuse_taken
from od_detr.data.writing.names import below_common
from od_detr.doctor.catalogue import KINDS
from od_detr.doctor.checks.boxes import box_problems
from od_detr.doctor.checks.classes import spelling
from od_detr.doctor.checks.duplicates import duplicate_problems
from od_detr.doctor.checks.images import image_problems
from od_detr.doctor.cleaning.repair import clipped_to_images, repaired, with_joint_classes
from od_detr.doctor.diagnosis import Diagnosis
from od_detr.doctor.kind import LEAVES_BOX, LEAVES_IMAGE
from od_detr.doctor.problem import Problem, Split
from od_detr.errors import InputError
from od_detr.files import writing

QUARANTINE = "quarantine.csv"
BOXES_OUT = {code for code, kind in KINDS.items() if kind.cleaned == LEAVES_BOX}
# An image of another size than its entry stays if its boxes could be scaled.
IMAGES_OUT = {code for code, kind in KINDS.items() if kind.cleaned == LEAVES_IMAGE} | {
    "image-wrong-size",
    "image-id",
}


@dataclass(frozen=True)
class Rejected:
    """A record that the cleaned set leaves out, and why.

    `count` is more than 1 where readers only counted further records of a kind.
    """

    split: str
    record: str
    code: str
    problem: str
    count: int = 1


@dataclass(frozen=True, eq=False)
class Cleaned:
    """The splits without what cannot be used, and what that is."""

    splits: tuple[Split, ...]
    rejected: tuple[Rejected, ...]


def cleaned(diagnosis: Diagnosis) -> Cleaned:
    """Repairs what can be repaired and leaves out what cannot. The diagnosis stays as it is.

    Raises:
        InputError: a split cannot be read at all.
    """
    unreadable = [each for each in diagnosis.problems if each.code == "annotations-unreadable"]
    if unreadable:
        raise InputError(f"--fix: {unreadable[0].examples[0]}")
    splits = with_joint_classes([repaired(split) for split in diagnosis.splits])
    problems = [each for split in splits for each in (*image_problems(split), *box_problems(split))]
    problems += duplicate_problems(splits)
    trained = _trained(diagnosis.splits[0])
    rejected = _rejected_by_readers(diagnosis)
    kept: list[Split] = []
    for split in splits:
        mine = [problem for problem in problems if problem.split == split.name]
        images, boxes = _left_out(split, mine)
        rejected += _listed(split, mine)
        kept.append(_without(split, images, boxes, trained))
    return Cleaned(tuple(kept), tuple(rejected))


def write_cleaned(made: Cleaned, output: Path) -> None:
    """Writes a data set in COCO format: annotations, links to the image folders, the quarantine.

    Args:
        made: what to write.
        output: a folder that is absent or empty. On an error it stays so.

    Raises:
        InputError: the folder is not empty, or cannot be written.
    """
    refuse_taken(output, "--fix")
    with writing(output, "--fix"), new_folder(output) as folder:
        for split in made.splits:
            whole = split.name == ALL
            place = folder / "images" if whole else folder / "images" / split.name
            names = _linked(split.annotations, place)
            file = folder / ("annotations.json" if whole else f"{split.name}.json")
            write_coco(split.annotations, file, names)
        with (folder / QUARANTINE).open(
            "w", encoding="utf-8", errors="backslashreplace", newline=""
        ) as opened:
            rows = csv.writer(opened)
            rows.writerow(("split", "record", "code", "problem"))
            rows.writerows((out.split, out.record, out.code, out.problem) for out in made.rejected)


def _trained(split: Split) -> tuple[str, ...]:
    """The spellings of the classes of the first split, the training set if there is one."""
    return tuple(dict.fromkeys(map(spelling, split.annotations.classes)))


def _rejected_by_readers(diagnosis: Diagnosis) -> list[Rejected]:
    """What the readers left out already; and images whose boxes are of an unknown class."""
    rejected = []
    for problem in diagnosis.problems:
        if len(problem.images) or problem.code not in BOXES_OUT | IMAGES_OUT | {"category-unknown"}:
            continue
        title, more = problem.kind.title, problem.count - len(problem.examples)
        rejected += [
            Rejected(problem.split, example, problem.code, title) for example in problem.examples
        ]
        if more > 0:
            text = f"and {more} more like it"
            rejected.append(Rejected(problem.split, text, problem.code, title, more))
    return rejected


def _left_out(
    split: Split, problems: Sequence[Problem]
) -> tuple[Bool[np.ndarray, " I"], Bool[np.ndarray, " N"]]:
    """Which images and which boxes are left out."""
    found = split.annotations
    paths = list(found.paths)
    first: dict[str, int] = {}
    # Without a file, or with one that is listed before.
    images = np.array(
        [not path or first.setdefault(path, n) != n for n, path in enumerate(paths)], np.bool_
    )
    boxes = np.zeros(len(found.labels), np.bool_)
    for problem in problems:
        if problem.code in IMAGES_OUT:
            images[problem.images] = True
        if problem.code in BOXES_OUT:
            boxes[problem.boxes] = True
    return images, boxes


def _listed(split: Split, problems: Sequence[Problem]) -> list[Rejected]:
    out = [problem for problem in problems if problem.code in IMAGES_OUT | BOXES_OUT]
    return [
        Rejected(split.name, record, problem.code, problem.kind.title)
        for problem in out
        for record in (
            *(map(split.image, problem.images.tolist()) if problem.code in IMAGES_OUT else ()),
            *map(split.box, problem.boxes.tolist()),
        )
    ]


def _without(
    split: Split,
    images: Bool[np.ndarray, " I"],
    boxes: Bool[np.ndarray, " N"],
    trained: Sequence[str],
) -> Split:
    """The split without these images and boxes, clipped, with the classes that are trained."""
    found = split.annotations
    kept = ~boxes
    starts = np.concatenate([[0], np.cumsum(kept)])[found.starts].astype(np.int64)
    found = found.with_boxes(np.flatnonzero(kept), starts)
    found = clipped_to_images(found.selected(np.flatnonzero(~images)))
    known = [label for label, name in enumerate(found.classes) if spelling(name) in trained]
    looks = [look for look, out in zip(split.looks, images.tolist(), strict=True) if not out]
    return replace(split, annotations=relabelled(found, known), looks=looks)


def _linked(found: Annotations, place: Path) -> list[str]:
    """Makes `place` a link to the folder of the images; returns their names below it.

    Where the system makes no links, the images are copied.
    """
    above, names = below_common(found.paths)
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(above, place, target_is_directory=True)
    except OSError:
        for path, name in zip(found.paths, names, strict=True):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place / name)
    return names
