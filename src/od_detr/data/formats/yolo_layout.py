"""Where a data set in YOLO format keeps its images, labels and class names."""

from __future__ import annotations

import posixpath
import reprlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from od_detr.data.formats.choices import ALL, NAMES, Choices, Readers, files_in
from od_detr.data.formats.yolo import (
    CLASS_FILES,
    YoloSplit,
    found_below,
    images_in,
    label_file,
    read_yolo,
)
from od_detr.errors import InputError
from od_detr.plain_yaml import parse_yaml

YAML = (".yaml", ".yml")
LARGEST_TEXT = 1 << 20  # bytes of a YAML or .data file


def yolo_readers(data: Path, choices: Choices) -> Readers:
    """The splits of a folder in YOLO layout.

    With a ``data.yaml`` (or another YAML file that has `names`): its `train`, `val` and, if it is
    there, `test`.
    With a Darknet ``obj.data``: its `train` and `valid`. Without: ``images/train`` and
    ``labels/train``, ``train/images`` and ``train/labels``, ``train`` with a text file beside each
    image; or undivided ``images`` and ``labels``, or images with a text file beside each and a
    ``classes.txt``.

    Raises:
        InputError: the YAML file cannot be understood, or names a split that is not there.
    """
    del choices  # YOLO leaves nothing to choose
    return _readers(
        _splits_of_folder(data) or _from_darknet(data) or _from_folders(data) or _undivided(data)
    )


def yaml_readers(file: Path) -> Readers:
    """The splits that a YAML file in YOLO format names, whatever else its folder holds.

    Raises:
        InputError: it describes no data set, or names a split that is not there.
    """
    if not (splits := _splits_of_yaml(file, named=True)):
        raise InputError(
            f"{file}: needs names (of the classes) and at least one of train, val and test; "
            "correct it, or give the data set's folder"
        )
    return _readers(splits)


def _readers(splits: dict[str, YoloSplit]) -> Readers:
    return {name: partial(read_yolo, split) for name, split in splits.items()}


def _splits_of_folder(data: Path) -> dict[str, YoloSplit]:
    ordinary = [data / name for name in ("data.yaml", "data.yml", "dataset.yaml")]
    for file in dict.fromkeys((*ordinary, *files_in(data, *YAML))):
        if file.is_file() and (splits := _splits_of_yaml(file)) is not None:
            return splits
    return {}


def _splits_of_yaml(file: Path, named: bool = False) -> dict[str, YoloSplit] | None:
    """The splits that a file names, which the user may have; None if it describes no data set."""
    if (content := _yaml(file, named)) is None:
        return None
    names, keypoints, splits = _class_names(content, file), _keypoints(content, file), {}
    entries: dict[str, list[_Entry]] = {}
    for split in NAMES:
        entry = content.get(split, content.get("valid") if split == "val" else None)
        if entry:
            try:
                entries[split] = _entries(entry, content.get("path"), file, split)
                _refuse_shared(entries, split, file)
            except InputError:
                if split != "test":  # which exports name whether they have one or not
                    raise
                continue
            places = tuple(each.place for each in entries[split])
            splits[split] = YoloSplit(file, file.parent, places, names, keypoints)
    return splits


def _yaml(file: Path, named: bool) -> dict[str, Any] | None:
    """The content of a YAML file that describes a data set."""
    if file.stat().st_size > LARGEST_TEXT:
        if named:
            raise InputError(f"{file}: is larger than 1 MB; give the data set's folder")
        return None
    try:
        content = parse_yaml(file.read_text(encoding="utf-8-sig"))
    except (RecursionError, ValueError) as problem:
        if named or file.stem == "data":
            reason = " ".join(str(problem).split())
            raise InputError(f"{file}: cannot be read ({reason}); correct the YAML") from problem
        return None
    described = isinstance(content, dict) and "names" in content
    return content if described and content.keys() & {"train", "val", "valid", "test"} else None


def _class_names(content: dict[str, Any], file: Path) -> tuple[str, ...]:
    names = content["names"]
    if isinstance(names, dict) and {str(key) for key in names} == set(map(str, range(len(names)))):
        by_number = {int(key): name for key, name in names.items()}
        names = [by_number[label] for label in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(n, str | int) for n in names):
        raise InputError(
            f"{file}: names is neither a list nor a mapping from 0, 1, … to class names; write one "
            "of them"
        )
    count = content.get("nc", len(names))
    if count != len(names):
        raise InputError(f"{file}: nc is {count}, but there are {len(names)} names; correct one")
    return tuple(map(str, names))


def _keypoints(content: dict[str, Any], file: Path) -> int:
    """How many numbers follow a box: keypoints have two or three each."""
    match content.get("kpt_shape"):
        case None:
            return 0
        case [int(number), 2 | 3 as each] if number >= 0:
            return number * each
    raise InputError(
        f"{file}: kpt_shape is {reprlib.repr(content['kpt_shape'])}; write the number of keypoints "
        "and 2 or 3, such as [17, 3], or leave it out"
    )


class _Entry(NamedTuple):
    """A path that is written for a split, where it is, and whether that is more than its end."""

    text: str
    place: Path
    exact: bool


def _entries(entry: Any, path: Any, file: Path, split: str) -> list[_Entry]:
    root = file.parent
    bases = [root / path.replace("\\", "/"), root] if isinstance(path, str) else [root]
    found = []
    for text in map(str, entry if isinstance(entry, list) else [entry]):
        if (each := _found(text, bases, root)) is None:
            looked_for = " or ".join(map(str, _written(text, bases)))
            raise InputError(f"{file}: {split}: {text!r} is not there ({looked_for}); correct it")
        found.append(each)
    return found


def _found(text: str, bases: Sequence[Path], root: Path) -> _Entry | None:
    place = found_below(text, bases, root)
    return None if place is None else _Entry(text, place, place in _written(text, bases))


def _written(text: str, bases: Sequence[Path]) -> list[Path]:
    """Where a path is if it is taken as it is written."""
    return [base / text.strip().replace("\\", "/") for base in bases]


def _refuse_shared(entries: Mapping[str, Sequence[_Entry]], split: str, file: Path) -> None:
    """Different paths that mean the same images are wrong, unless they were found as written."""
    for other in entries.keys() - {split}:
        mine, theirs = entries[split], entries[other]
        swapped = ((one, two) for two, one in _within(theirs, mine))
        for one, two in chain(_within(mine, theirs), swapped):
            if not (one.exact and two.exact) and _normal(one.text) != _normal(two.text):
                lost, its, owner = (two, other, split) if one.exact else (one, split, other)
                raise InputError(
                    f"{file}: {its}: {lost.text!r} is not there, and {lost.place} is {owner}'s; "
                    "correct the paths"
                )


def _within(inner: Sequence[_Entry], outer: Sequence[_Entry]) -> Iterator[tuple[_Entry, _Entry]]:
    """The pairs whose first place is the second or lies in it."""
    by_place: dict[Path, list[_Entry]] = defaultdict(list)
    for entry in dict.fromkeys(outer):
        by_place[entry.place].append(entry)
    for entry in dict.fromkeys(inner):
        for place in (entry.place, *entry.place.parents):
            yield from ((entry, found) for found in by_place.get(place, ()))


def _normal(text: str) -> str:
    """A path as it is without blanks around it, a slash at its end and detours."""
    return posixpath.normpath(text.strip().replace("\\", "/"))


def _from_darknet(data: Path) -> dict[str, YoloSplit]:
    for file in files_in(data, ".data"):
        if file.stat().st_size > LARGEST_TEXT:
            continue
        pairs = (line.partition("=") for line in _lines(file))
        content = {key.strip(): value.strip() for key, _, value in pairs}
        places = {
            split: [place]
            for split, key in (("train", "train"), ("val", "valid"))
            if content.get(key) and (place := _found(content[key], [data], data))
        }
        if "val" in places:
            _refuse_shared(places, "val", file)
        listed = found_below(content["names"], [data], data) if "names" in content else None
        names = _names_in(listed) if listed else _names_beside(data)
        splits = {
            split: YoloSplit(file, data, (entry.place,), names)
            for split, (entry,) in places.items()
        }
        if splits:
            return splits
    return {}


def _from_folders(data: Path) -> dict[str, YoloSplit]:
    splits: dict[str, YoloSplit] = {}
    for split, words in NAMES.items():
        for word in words:
            pairs = (
                (data / "images" / word, data / "labels" / word),
                (data / word / "images", data / word / "labels"),
                (data / word, data / word),
            )
            for images, labels in pairs:
                if split not in splits and _is_pair(images, labels):
                    places = (data, data / word, labels)
                    names = next((n for place in places if (n := _names_beside(place))), None)
                    splits[split] = YoloSplit(labels, data, (images,), names)
    # A tool may write the names beside the labels of one split alone.
    known = next((each.names for each in splits.values() if each.names), None)
    return {split: replace(each, names=each.names or known) for split, each in splits.items()}


def _is_pair(images: Path, labels: Path) -> bool:
    if images != labels:
        return images.is_dir() and labels.is_dir()
    return _has_labels(images)


def _has_labels(images: Path) -> bool:
    return any(label_file(path).is_file() for path in images_in(images))


def _undivided(data: Path) -> dict[str, YoloSplit]:
    names = _names_beside(data)
    images, labels = data / "images", data / "labels"
    if images.is_dir() and (files_in(labels, ".txt") or _has_labels(images)):
        return {ALL: YoloSplit(labels, data, (images,), names)}
    if names is not None and _is_pair(data, data):
        return {ALL: YoloSplit(data, data, (data,), names)}
    return {}


def _names_beside(folder: Path) -> tuple[str, ...] | None:
    found = (folder / name for name in CLASS_FILES)
    return next((_names_in(file) for file in found if file.is_file()), None)


def _names_in(file: Path) -> tuple[str, ...]:
    """A class on each line; one without a name is called by its number."""
    lines = file.read_text(encoding="utf-8-sig", errors="replace").rstrip().splitlines()
    return tuple(line.strip() or str(number) for number, line in enumerate(lines))


def _lines(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]
