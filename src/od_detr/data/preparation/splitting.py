"""Divides a data set that has no validation split, by a hash of the file names."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from typing import Literal

import numpy as np

from od_detr.data.annotations import Annotations
from od_detr.data.findings import note
from od_detr.data.formats.choices import Choices
from od_detr.errors import InputError

Part = Literal["train", "val"]

DIVIDED = "divided"  # code of the note about the division


def part_of(annotations: Annotations, part: Part, choices: Choices) -> Annotations:
    """The training or validation images of a data set without splits.

    Each image goes where the hash of its name says, so the division stays when images are added and
    is written nowhere.

    Args:
        annotations: the whole set.
        part: which of the two.
        choices: `val_fraction` is the expected share of validation images, between 0 and 1. `group`
            is a regular expression; images whose first group (or whole match) is equal stay
            together, such as the frames of one video. An image that it does not match is a group of
            its own.

    Raises:
        InputError: the fraction or the expression makes no sense, or there are too few images.
    """
    val_fraction, group = choices.val_fraction, choices.group
    if not 0 < val_fraction < 1:
        raise InputError(f"--val-fraction must be between 0 and 1 (got {val_fraction})")
    members: dict[str, list[int]] = defaultdict(list)
    for image, name in enumerate(annotations.names):
        members[_key(name, group)].append(image)
    if len(members) < 2:
        raise InputError(
            f"{annotations.file}: cannot be divided for validation, as it has a single "
            f"{'image' if group is None else 'group of images'}; give --val-data DIR"
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
        f"taken for {'validation' if part == 'val' else 'training'}"
    )
    fix = "choose others with --val-fraction, --group or --val-data"
    return annotations.selected(images).with_findings(
        [note(DIVIDED, annotations.file, problem, fix)]
    )


def _key(name: str, group: str | None) -> str:
    name = name.replace("\\", "/")
    if group is None:
        return name
    try:
        found = re.search(group, name)
    except re.error as error:
        raise InputError(
            f"--group {group}: is not a regular expression ({error}); correct it"
        ) from error
    if found is None:
        return name
    return found.group(1) if found.re.groups and found.group(1) is not None else found.group(0)


def _place(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)
