"""What a user may choose about the data, and how finders of layouts look into folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from od_detr.data.annotations import Annotations
from od_detr.data.walking import walked

# By split; ALL is a data set that is not divided into splits.
Readers = dict[str, Callable[[], Annotations]]
ALL = "all"
HIDDEN = (".", "__MACOSX")
# What people call the splits.
NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def files_in(folder: Path, *suffixes: str, below: bool = False) -> list[Path]:
    """The files of a folder with one of these suffixes in any case, sorted.

    Hidden files are left out, with them the `._` files that macOS puts into archives.

    Args:
        folder: need not exist.
        suffixes: such as ".json".
        below: whether to look into its folders, too, and into those that are linked.
    """
    found = []
    for place, folders, names in walked(folder):
        visible = [name for name in folders if not name.startswith(HIDDEN)]
        folders[:] = visible if below else []
        found += [
            Path(place, name)
            for name in names
            if name.lower().endswith(suffixes) and not name.startswith(HIDDEN)
        ]
    return sorted(found)


@dataclass(frozen=True)
class Choices:
    """What a user may choose about the data.

    Attributes:
        val_fraction: share of the images for validation where the data set has no validation split.
        group: expression whose first group (or match) names the images that stay on one side of
            that split.
        val_data: another folder to validate on.
        classes: train on these classes alone, in this order; empty for all.
        single_class: treat all classes as one.
        difficult: what Pascal VOC's difficult objects are: `ignore` treats them like crowds, which
            are not trained on and ignored by an evaluation; `keep` treats them like any other
            object.
        voc_origin: coordinate of the first pixel in Pascal VOC files: 1 as in the original, or 0.
    """

    val_fraction: float = 0.2
    group: str | None = None
    val_data: str | None = None
    classes: tuple[str, ...] = ()
    single_class: bool = False
    difficult: Literal["ignore", "keep"] = "ignore"
    voc_origin: int = 1
