"""Checks of classes and of splits as a whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from od_detr.data.annotations import Annotations
from od_detr.data.counts import counted
from od_detr.data.folders import TRAINED
from od_detr.doctor.problem import Problem, Split, of_boxes, of_classes, of_split

RARE = 10
IMBALANCED = 100
FEW_IMAGES = 20
Counts = Mapping[str, int]


def counts_of(found: Annotations) -> dict[str, int]:
    """Boxes of each class that are trained on; crowds are not counted."""
    counts = np.bincount(found.labels[~found.crowd], minlength=len(found.classes)).tolist()
    total: dict[str, int] = {}
    for name, count in zip(found.classes, counts, strict=True):
        total[name] = total.get(name, 0) + count
    return total


def spelling(name: str) -> str:
    """A class name without what people write differently: case and blanks."""
    return "".join(name.casefold().split())


def alike(names: Sequence[str]) -> list[list[str]]:
    """Groups of different names that are spelled alike."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        groups[spelling(name)].append(name)
    return [members for members in groups.values() if len(members) > 1]


def class_problems(splits: Sequence[Split]) -> list[Problem]:
    """Names, and how many boxes each class has in each split."""
    if not splits:
        return []
    counts = {split.name: counts_of(split.annotations) for split in splits}
    names = list(dict.fromkeys(name for of_split in counts.values() for name in of_split))
    first = splits[0]
    problems = of_classes(
        "class-names-alike", first, [" and ".join(map(repr, g)) for g in alike(names)], len(names)
    )
    odd = [repr(name) for name in names if name != name.strip() or name.strip().isdigit()]
    problems += of_classes("class-name", first, odd, len(names))
    unused = [name for name in names if not any(each.get(name) for each in counts.values())]
    problems += of_classes("class-unused", first, list(map(repr, unused)), len(names))
    trained = next((split for split in splits if split.name in TRAINED), None)
    if trained is not None:
        known = [name for name in names if name not in unused]
        problems += _training(trained, counts, known)
    return problems


def _training(train: Split, counts: Mapping[str, Counts], names: Sequence[str]) -> list[Problem]:
    own = counts[train.name]
    has = {name: own.get(name, 0) for name in names}
    rare = [f"{name!r} has {has[name]}" for name in names if 0 < has[name] < RARE]
    problems = of_classes("class-rare", train, rare, len(names))
    untrained = [
        f"{name!r} has {number} in {split}"
        for name in names
        for split, of_split in counts.items()
        if not has[name] and (number := of_split.get(name, 0))
    ]
    problems += of_classes("class-untrained", train, untrained, len(names))
    if "val" in counts:
        absent = [repr(name) for name in names if has[name] and not counts["val"].get(name)]
        problems += of_classes("class-unmeasured", train, absent, len(names))
    return problems + _imbalance(train, {name: number for name, number in has.items() if number})


def _imbalance(train: Split, counts: Counts) -> list[Problem]:
    most = max(counts, key=counts.__getitem__, default="")
    example = [
        f"{name!r} has {number}, {most!r} has {counts[most]}"
        for name, number in sorted(counts.items(), key=lambda pair: pair[1])
        if RARE <= number <= counts[most] / IMBALANCED
    ]
    return of_classes("class-imbalance", train, example, len(counts))


def split_problems(splits: Sequence[Split]) -> list[Problem]:
    """Splits that are absent, too small, or have too few objects."""
    problems: list[Problem] = []
    names = {split.name for split in splits}
    if names & TRAINED and "val" not in names:
        words = "training takes a part of the images, chosen by a hash of their names"
        problems.append(of_split("split-absent", splits[0], words))
    for split in splits:
        found = split.annotations
        objects = split.objects
        without = int((objects == 0).sum())
        if split.name == "val" and len(objects) < FEW_IMAGES:
            problems.append(of_split("split-small", split, counted(len(objects), "image")))
        if not objects.sum():
            problems.append(
                of_split("split-empty", split, f"{counted(len(objects), 'image')}, no objects")
            )
        elif without > len(objects) / 2:
            words = f"{without} of {len(objects)} images"
            problems.append(of_split("split-background", split, words))
        problems += of_boxes(
            "split-crowds",
            split,
            np.flatnonzero(found.crowd),
            lambda _: "is a crowd or difficult",
        )
    return problems
