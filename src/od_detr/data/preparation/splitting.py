"""Divides a data set that has no validation split, by a hash of the file names."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from od_detr.data.annotations import Annotations
from od_detr.data.counts import counted
from od_detr.data.findings import note
from od_detr.data.formats.choices import Choices
from od_detr.errors import InputError

Part = Literal["train", "val"]

DIVIDED = "divided"  # code of the note about the division


def part_of(annotations: Annotations, part: Part, choices: Choices, root: Path) -> Annotations:
    """The training or validation images of a data set without splits.

    Each image goes where the hash of its name says, so the division stays when images are added and
    is written nowhere.

    Args:
        annotations: the whole set.
        part: which of the two.
        choices: `val_fraction` is the expected share of validation images, between 0 and 1. `group`
            is a regular expression; images whose first group (or whole match) is equal stay
            together, such as the frames of one video. It is searched in the image's name, and if
            that does not match, in its path below `root`. An image that neither matches is a group
            of its own.
        root: the data set's folder.

    Raises:
        InputError: the fraction or the expression makes no sense, the expression matches no image,
            or there are too few images.
    """
    val_fraction, group = choices.val_fraction, choices.group
    if not 0 < val_fraction < 1:
        raise InputError(f"--val-fraction must be between 0 and 1 (got {val_fraction})")
    members: dict[str, list[int]] = defaultdict(list)
    keys, alone = _names(annotations), ""
    if group is not None:
        keys, unmatched = _grouped(annotations, group, root)
        alone = f"; --group does not match {counted(unmatched, 'image')}" if unmatched else ""
    for image, key in enumerate(keys):
        members[key].append(image)
    if len(members) < 2:
        single, fix = "it has a single image", "give --val-data DIR"
        if group is not None:
            single = f"--group {group} makes a single group of its images"
            fix = f"correct it, or {fix}"
        elif len(keys) > 1:
            single = f"all its images are called {keys[0]!r}"
            fix = f"rename them, divide them by their folders with --group '(.*)/', or {fix}"
        raise InputError(
            f"{annotations.file}: cannot be divided for validation, as {single}; {fix}"
        )
    place = {key: _place(key) for key in members}
    ascending = sorted(members, key=lambda key: (place[key], key))
    # At least one group on each side.
    count = sum(place[key] < val_fraction for key in members)
    count = min(max(count, 1), len(members) - 1)
    chosen = ascending[:count] if part == "val" else ascending[count:]
    images = np.array(sorted(i for key in chosen for i in members[key]), dtype=np.int64)
    problem = (
        f"has no validation split; {len(images)} of {len(annotations.image_ids)} images are "
        f"taken for {'validation' if part == 'val' else 'training'}{alone}"
    )
    fix = "choose others with --val-fraction, --group or --val-data"
    return annotations.selected(images).with_findings(
        [note(DIVIDED, annotations.file, problem, fix)]
    )


def _names(annotations: Annotations) -> list[str]:
    return [name.replace("\\", "/") for name in annotations.names]


def _grouped(annotations: Annotations, group: str, root: Path) -> tuple[list[str], int]:
    """What the expression finds for each image, or its name; for how many it finds nothing.

    YOLO and Pascal VOC files name images without their folders, which only the path has.
    """
    names = _names(annotations)
    above = os.path.join(os.path.abspath(root), "")
    absolute = [os.path.abspath(path) if path else "" for path in annotations.paths]
    # The folders of an image that is elsewhere are not the same on every computer.
    paths = [
        path.removeprefix(above).replace(os.sep, "/") if path.startswith(above) else name
        for name, path in zip(names, absolute, strict=True)
    ]
    keys = [_key(texts, group) for texts in zip(names, paths, strict=True)]
    unmatched = keys.count(None)
    if unmatched == len(keys):
        raise InputError(
            f"--group {group}: matches no image, such as {paths[0]!r}; correct it, or leave it out"
        )
    found = [name if key is None else key for name, key in zip(names, keys, strict=True)]
    return found, unmatched


def _key(texts: Sequence[str], group: str) -> str | None:
    """What the expression finds in the first of these texts that it matches."""
    try:
        found = next((match for text in texts if (match := re.search(group, text))), None)
    except re.error as error:
        raise InputError(
            f"--group {group}: is not a regular expression ({error}); correct it"
        ) from error
    if found is None:
        return None
    return found.group(1) if found.re.groups and found.group(1) is not None else found.group(0)


def _place(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)
