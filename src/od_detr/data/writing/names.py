"""Names of the image files of a data set that is written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from od_detr.data.formats.choices import HIDDEN
from od_detr.data.image_formats import IMAGE_SUFFIXES
from od_detr.errors import InputError


def below_common(paths: Iterable[str]) -> tuple[str, list[str]]:
    """The folder that all files have in common, and the path of each below it, with slashes."""
    absolute = [os.path.abspath(path) for path in paths]
    common = os.path.commonpath([os.path.dirname(path) for path in absolute]) if absolute else ""
    return common, [os.path.relpath(path, common).replace(os.sep, "/") for path in absolute]


def unique(names: Iterable[str]) -> list[str]:
    """The names in their order; one that was there before gets a number."""
    taken: dict[str, None] = {}  # a set in the order of the names
    last: dict[str, int] = {}  # the last number of each name, so that no number is tried twice
    for given in names:
        name = given
        while name in taken:
            last[given] = last.get(given, 1) + 1
            name = f"{given}-{last[given]}"
        taken[name] = None
    return list(taken)


def yolo_names(names: Sequence[str]) -> list[str]:
    """The same paths where each image has a label file of its own, which YOLO's readers find.

    They put `labels` for the last folder called `images`, so none below the split's is called that;
    and a.jpg and a.png would share a.txt, so the second is renamed.
    """
    renamed = []
    for name in names:
        path = PurePosixPath(name)
        folders = ["image" if part == "images" else part for part in path.parts[:-1]]
        renamed.append(PurePosixPath(*folders, path.name))
    stems = unique(str(path.with_suffix("")) for path in renamed)
    return [f"{stem}{path.suffix}" for stem, path in zip(stems, renamed, strict=True)]


def refuse_overlooked(paths: Iterable[str], names: Iterable[str]) -> None:
    """YOLO's readers look for images by their suffix, and not in hidden folders.

    Args:
        paths: the image files.
        names: the path of each in the data set that is written.

    Raises:
        InputError: they would not find one of the images.
    """
    for path, name in zip(paths, names, strict=True):
        hidden = next((part for part in name.split("/") if part.startswith(HIDDEN)), None)
        if hidden is not None:
            reason = f"{hidden!r} is hidden"
        elif not name.lower().endswith(IMAGE_SUFFIXES):
            suffix = PurePosixPath(name).suffix
            reason = f"{suffix!r} is no suffix of images" if suffix else "it has no suffix"
        else:
            continue
        raise InputError(
            f"{path}: YOLO's readers would overlook this image, as {reason}; rename it, also in "
            "the annotations"
        )
