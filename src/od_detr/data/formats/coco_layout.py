"""Where a data set in COCO format keeps its annotations and its images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from od_detr.data.annotations import Annotations
from od_detr.data.formats.choices import ALL, NAMES, Choices, Readers
from od_detr.data.formats.coco import read_coco
from od_detr.data.preparation.placing import placed
from od_detr.errors import InputError

LONE = ("annotations.json", "_annotations.coco.json", "instances_default.json", "result.json")


def coco_readers(data: Path, choices: Choices) -> Readers:
    """The splits of a folder in COCO layout.

    Known layouts, the first one present being taken (`*` is empty or a year, as in ``train2017``):

    - ``train.json`` or ``instances_train*.json``,
    - ``annotations/instances_train*.json`` or ``annotations/train.json``,
    - ``train/_annotations.coco.json`` as Roboflow exports it, its validation split being called ``valid``,
    - a single JSON file with images and annotations, as CVAT and Label Studio export it: a set without splits.

    The images lie beside Roboflow's file, else in the first folder present of ``images/train2017``,
    ``train2017``, ``images/train``, ``train``, ``images``, else in `data` itself.

    Raises:
        InputError: several files are equally good.
    """
    del choices  # COCO leaves nothing to choose
    files = {split: file for split in NAMES if (file := _annotation_file(data, split))}
    if not files and (lone := _lone_file(data)):
        files = {ALL: lone}
    return {split: partial(_read, file, data, split) for split, file in files.items()}


def coco_patterns(split: str) -> list[str]:
    """Where the annotations of a split may be, the most likely place first."""
    return [
        pattern
        for name in NAMES[split]
        for pattern in (
            f"{name}.json",
            f"instances_{name}*.json",
            f"annotations/instances_{name}*.json",
            f"annotations/{name}.json",
            f"{name}/_annotations.coco.json",
        )
    ]


def image_folder(data: Path, file: Path, split: str) -> Path:
    """The folder of a split's images."""
    if file.name == "_annotations.coco.json":
        return file.parent
    stems = dict.fromkeys((file.stem.removeprefix("instances_"), *NAMES.get(split, ())))
    places = [place for stem in stems for place in (f"images/{stem}", stem)]
    return next((data / place for place in (*places, "images") if (data / place).is_dir()), data)


def _annotation_file(data: Path, split: str) -> Path | None:
    for pattern in coco_patterns(split):
        found = sorted(path for path in data.glob(pattern) if path.is_file())
        if len(found) > 1:
            raise InputError(
                f"{data}: {' and '.join(path.name for path in found)} could both be the {split} split; "
                "keep one of them"
            )
        if found:
            return found[0]
    return None


def _lone_file(data: Path) -> Path | None:
    """The one file that may hold a whole data set: by its name, or because it is the only JSON file."""
    for folder in (data, data / "annotations"):
        found = sorted(path for path in folder.glob("*.json") if path.is_file())
        named = [path for path in found if path.name in LONE]
        if len(named) == 1 or len(found) == 1:
            return (named or found)[0]
    return None


def _read(file: Path, data: Path, split: str) -> Annotations:
    folder = image_folder(data, file, split)
    # Between images/train and the data set's folder lies images; a name may be meant from there, too.
    above = [up for up in folder.parents if up.is_relative_to(data)]
    return placed(read_coco(file), [folder, *above], data)
