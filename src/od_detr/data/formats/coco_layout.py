"""Where a data set in COCO format keeps its annotations and its images."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from functools import partial
from itertools import chain
from pathlib import Path

from od_detr.data.annotations import Annotations
from od_detr.data.formats.choices import ALL, NAMES, Choices, Readers, files_in
from od_detr.data.formats.coco import read_coco
from od_detr.data.preparation.placing import placed
from od_detr.data.walking import walked
from od_detr.errors import InputError

LONE = (
    *("annotations.json", "_annotations.coco.json", "instances_default.json", "result.json"),
    "labels.json",
)
PLACES = (
    *("{}.json", "instances_{}*.json", "annotations/instances_{}*.json", "annotations/{}.json"),
    "{}/_annotations.coco.json",
    *("{}/annotations.json", "{}/labels.json"),
)
MARKS = (b'"images"', b'"annotations"', b'"categories"')  # one stands at the start of a COCO file


def coco_readers(data: Path, choices: Choices) -> Readers:
    """The splits of a folder in COCO layout.

    Known layouts, the first one present being taken (`*` is empty or a year, as in ``train2017``):

    - ``train.json`` or ``instances_train*.json``,
    - ``annotations/instances_train*.json`` or ``annotations/train.json``,
    - ``train/_annotations.coco.json`` as Roboflow exports it, its validation split being called
      ``valid``; or ``train/annotations.json`` or ``train/labels.json``,
    - one of `LONE`, as CVAT, Label Studio and FiftyOne export it: a set without splits.

    The images lie beside the file of a split's own folder or in `images` or `data` there, else in
    the first folder present of ``images/train2017``, ``train2017``, ``images/train``, ``train``,
    ``images``, ``data``, else in `data` itself. Case does not matter.

    Raises:
        InputError: several files are equally good.
    """
    del choices  # COCO leaves nothing to choose
    present = _split_files(data)
    files = {split: file for split in NAMES if (file := _annotation_file(data, split, present))}
    if not files and (lone := _lone_file(data, LONE)):
        files = {ALL: lone}
    return {split: partial(_read, file, data, split) for split, file in files.items()}


def lone_coco_readers(data: Path, choices: Choices) -> Readers:
    """The only JSON file of a folder, whatever its name, if it begins like a COCO file."""
    del choices
    file = _lone_file(data)
    if file is None or file.name == "notes.json":  # Label Studio's, beside YOLO files
        return {}
    with file.open("rb") as opened:
        beginning = opened.read(1 << 16)
    if not any(mark in beginning for mark in MARKS) and len(beginning) > 2:
        return {}
    return {ALL: partial(_read, file, data, ALL)}


def coco_patterns(split: str) -> list[str]:
    """Where the annotations of a split may be, the most likely place first."""
    return list(dict.fromkeys(place.format(name) for name in NAMES[split] for place in PLACES))


def image_folder(data: Path, file: Path, split: str) -> Path:
    """The folder of a split's images."""
    here = _folders(data)
    if file.parent not in (data, here.get("annotations")):
        own = _folders(file.parent)
        return own.get("images") or own.get("data") or file.parent
    below = _folders(here["images"]) if "images" in here else {}
    for stem in (file.stem.lower().removeprefix("instances_"), *NAMES.get(split, ())):
        if folder := below.get(stem) or here.get(stem):
            return folder
    return here.get("images") or here.get("data") or data


def _folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder by their names in lower case."""
    _, names, _ = next(walked(folder), ("", [], []))
    return {name.lower(): folder / name for name in sorted(names)}  # of two, the lower-case one


def _annotation_file(data: Path, split: str, files: Sequence[Path]) -> Path | None:
    for pattern in coco_patterns(split):
        found = [
            file for file in files if fnmatch(file.relative_to(data).as_posix().lower(), pattern)
        ]
        if len(found) > 1:
            raise InputError(
                f"{data}: {' and '.join(path.name for path in found)} could both be the {split} "
                "split; keep one of them"
            )
        if found:
            return found[0]
    return None


def _split_files(data: Path) -> list[Path]:
    """The JSON files of a folder, of `annotations` and of the folders that are called as splits."""
    words = {"annotations", *chain.from_iterable(NAMES.values())}
    folders = [path for path in sorted(data.iterdir()) if path.name.lower() in words]
    return list(chain.from_iterable(files_in(folder, ".json") for folder in (data, *folders)))


def _lone_file(data: Path, names: Sequence[str] | None = None) -> Path | None:
    """The one JSON file of a folder that may hold a whole data set."""
    for folder in (data, _folders(data).get("annotations")):
        files = [] if folder is None else files_in(folder, ".json")
        found = [path for path in files if names is None or path.name.lower() in names]
        if len(found) == 1:
            return found[0]
    return None


def _read(file: Path, data: Path, split: str) -> Annotations:
    folder = image_folder(data, file, split)
    # A name may also be relative to `images`, between images/train and the data set's folder.
    above = [up for up in folder.parents if up.is_relative_to(data)]
    return placed(read_coco(file), [folder, *above], data)
