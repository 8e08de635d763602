"""Which categories of a file are classes, and which label each gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from od_detr.data.annotations import Annotations, Categories
from od_detr.data.counts import counted
from od_detr.data.findings import Finding, error, note
from od_detr.errors import InputError


def own_classes(annotations: Annotations) -> Annotations:
    """The split's own classes by ascending category id.

    A category without boxes that others name as their supercategory is not a class: Roboflow
    exports begin with one for the whole project.
    """
    categories = annotations.categories
    used = set(np.flatnonzero(np.bincount(annotations.labels)).tolist())
    roots = [
        label
        for label, name in enumerate(categories.names)
        if label not in used and _is_parent(categories, label, name)
    ]
    kept = [label for label in range(len(categories.ids)) if label not in roots]
    found: list[Finding] = [
        note(
            "root-category",
            annotations.file,
            f"category {categories.ids[label]} {categories.names[label]!r} has no boxes and is the "
            "supercategory of others, so it is not a class",
            "nothing to do",
        )
        for label in roots
    ]
    found += _repeated_names(annotations, kept)
    return relabelled(annotations, kept).with_findings(found)


def _is_parent(categories: Categories, label: int, name: str) -> bool:
    return any(parent == name for other, parent in enumerate(categories.parents) if other != label)


def _repeated_names(annotations: Annotations, labels: Sequence[int]) -> list[Finding]:
    categories, first, found = annotations.categories, {}, []
    for label in labels:
        identity, name = categories.ids[label], categories.names[label]
        if (known := first.setdefault(name, identity)) != identity:
            found.append(
                error(
                    "category-name",
                    annotations.file,
                    f"category {identity}",
                    f"name {name!r} is that of category {known} too",
                    "give each category its own name",
                )
            )
    return found


def given_classes(
    annotations: Annotations, classes: Sequence[str], chosen: Sequence[str] = ()
) -> Annotations:
    """The classes of a training set, matched by name.

    The split may list fewer categories, or further ones that have no boxes. A class that it does
    not list has category id -1. Where the user has `chosen` classes, boxes of others are left out.
    """
    split = own_classes(annotations)
    categories = split.categories
    counts = np.bincount(split.labels, minlength=len(categories.ids))
    found = [
        error(
            "category-unknown",
            split.file,
            f"category {categories.ids[label]}",
            f"name {name!r} has {counted(int(counts[label]), 'box')} but is not a class of the "
            "training set",
            f"use the class names {', '.join(classes)}",
        )
        for label, name in enumerate(categories.names)
        if name not in classes and counts[label] and not chosen
    ]
    label_of = {name: label for label, name in enumerate(categories.names)}
    return relabelled(split, [label_of.get(name, -1) for name in classes], classes).with_findings(
        found
    )


def relabelled(
    annotations: Annotations, labels: Sequence[int], names: Sequence[str] | None = None
) -> Annotations:
    """Keeps these labels, in this order, and the boxes that have them.

    -1 stands for a class without boxes.
    """
    categories = annotations.categories
    if list(labels) == list(range(len(categories.ids))):
        return annotations
    new = np.full(len(categories.ids) + 1, -1, dtype=np.int64)
    for label, old in enumerate(labels):
        if old >= 0:
            new[old] = label
    moved = new[annotations.labels]
    rows = np.flatnonzero(moved >= 0)
    starts = np.concatenate([[0], np.cumsum(moved >= 0)])[annotations.starts].astype(np.int64)
    kept = annotations if len(rows) == len(moved) else annotations.with_boxes(rows, starts)
    absent = names or ("",) * len(labels)
    return replace(
        kept,
        labels=moved[rows],
        categories=Categories(
            tuple(categories.ids[old] if old >= 0 else -1 for old in labels),
            tuple(
                categories.names[old] if old >= 0 else absent[label]
                for label, old in enumerate(labels)
            ),
            tuple(categories.parents[old] if old >= 0 else "" for old in labels),
        ),
    )


def subset(annotations: Annotations, names: Sequence[str]) -> Annotations:
    """The boxes of these classes alone; all images stay.

    Raises:
        InputError: the data set has no such class.
    """
    absent = [name for name in names if name not in annotations.classes]
    if absent:
        raise InputError(
            f"--classes {absent[0]}: {annotations.file} has no such class; "
            f"give some of {', '.join(annotations.classes)}"
        )
    left = len(annotations.labels)
    chosen = relabelled(annotations, [annotations.classes.index(name) for name in names])
    left -= len(chosen.labels)
    problem = f"--classes leaves out {counted(int(left), 'box')} of other classes"
    return chosen.with_findings([note("classes", annotations.file, problem, "nothing to do", left)])


def evaluated_classes(
    annotations: Annotations, known: Sequence[str], chosen: Sequence[str] = ()
) -> Annotations:
    """The classes that a detector is evaluated on, of a split's own.

    As in training, the split may list further ones that have no boxes, and need not list all that
    the user has `chosen`.

    Args:
        annotations: with the split's own classes.
        known: the detector's classes.
        chosen: names of the only ones to evaluate; none for all.

    Raises:
        InputError: the split lists none of those that were chosen.
    """
    if chosen:
        return subset(
            annotations, [name for name in chosen if name in annotations.classes] or chosen
        )
    counts = np.bincount(annotations.labels, minlength=len(annotations.classes))
    kept = [
        label for label, name in enumerate(annotations.classes) if counts[label] or name in known
    ]
    return relabelled(annotations, kept) if kept else annotations


def merged(annotations: Annotations, name: str = "object") -> Annotations:
    """All classes as one."""
    return replace(
        annotations,
        labels=np.zeros_like(annotations.labels),
        categories=Categories((1,), (name,), ("",)),
    )
