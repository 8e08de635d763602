"""YOLO data sets: one text file an image, one object a line, coordinates as shares of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from od_detr.data.annotations import Annotations, Categories
from od_detr.data.findings import Finding, error, note, warning
from od_detr.data.formats.assembled import LabelledImage, assembled
from od_detr.data.formats.choices import ALL, NAMES, Choices, Readers
from od_detr.data.headers.scan import read_headers
from od_detr.data.image_formats import IMAGE_SUFFIXES
from od_detr.errors import InputError

LARGEST_YAML = 1 << 20
CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "names.txt")


@dataclass(frozen=True)
class YoloSplit:
    """Image folders or files of one split, and the class names, where they are known."""

    file: Path
    places: tuple[Path, ...]
    names: tuple[str, ...] | None


def yolo_readers(data: Path, choices: Choices) -> Readers:
    """The splits of a folder in YOLO layout.

    With a ``data.yaml`` (or another YAML file that has `names`): its `train`, `val` and `test`. Without:
    ``images/train`` and ``labels/train``, ``train/images`` and ``train/labels``, or undivided ``images`` and ``labels``
    or images with a text file beside each and a ``classes.txt``.

    Raises:
        InputError: the YAML file cannot be understood, or names a split that is not there.
    """
    del choices  # YOLO leaves nothing to choose
    splits = _from_yaml(data) or _from_folders(data)
    return {name: partial(read_yolo, split) for name, split in splits.items()}


def _from_yaml(data: Path) -> dict[str, YoloSplit]:
    ordinary = [data / name for name in ("data.yaml", "data.yml", "dataset.yaml")]
    others = [*sorted(data.glob("*.yaml")), *sorted(data.glob("*.yml"))]
    for file in dict.fromkeys((*ordinary, *others)):
        if file.is_file() and (content := _yaml(file)) is not None:
            names, splits = _class_names(content, file), {}
            for split in NAMES:
                entry = content.get(split, content.get("valid") if split == "val" else None)
                if entry:
                    places = _places(entry, content.get("path"), file, split)
                    splits[split] = YoloSplit(file, places, names)
            return splits
    return {}


def _yaml(file: Path) -> dict[str, Any] | None:
    """The content of a YAML file that describes a data set."""
    import yaml

    if file.stat().st_size > LARGEST_YAML:
        return None
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as problem:
        if file.stem == "data":
            reason = " ".join(str(problem).split())
            raise InputError(f"{file}: cannot be read ({reason}); correct the YAML") from problem
        return None
    if (
        isinstance(content, dict)
        and "names" in content
        and content.keys() & {"train", "val", "test"}
    ):
        return content
    return None


def _class_names(content: dict[str, Any], file: Path) -> tuple[str, ...]:
    names = content["names"]
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[label] for label in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(n, str | int) for n in names):
        raise InputError(
            f"{file}: names is neither a list nor a mapping from 0, 1, … to class names; write one of them"
        )
    count = content.get("nc", len(names))
    if count != len(names):
        raise InputError(f"{file}: nc is {count}, but there are {len(names)} names; correct one")
    return tuple(map(str, names))


def _places(entry: Any, path: Any, file: Path, split: str) -> tuple[Path, ...]:
    entries = entry if isinstance(entry, list) else [entry]
    bases = [file.parent]
    if isinstance(path, str):
        bases.insert(0, file.parent / path)
    found = []
    for each in map(str, entries):
        # Roboflow writes ../train/images for a folder beside the YAML file.
        inner = each
        while inner.startswith("../"):
            inner = inner[3:]
        candidates = [base / text for text in (each, inner) for base in bases]
        existing = [place for place in candidates if place.exists()]
        if not existing:
            looked_for = " or ".join(str(place) for place in dict.fromkeys(candidates))
            raise InputError(f"{file}: {split}: {each!r} is not there ({looked_for}); correct it")
        found.append(existing[0])
    return tuple(found)


def _from_folders(data: Path) -> dict[str, YoloSplit]:
    names = _names_beside(data)
    splits = {}
    for split, words in NAMES.items():
        for word in words:
            pairs = (
                (data / "images" / word, data / "labels" / word),
                (data / word / "images", data / word / "labels"),
            )
            for images, labels in pairs:
                if images.is_dir() and labels.is_dir():
                    splits.setdefault(split, YoloSplit(labels, (images,), names))
    if splits:
        return splits
    if (data / "images").is_dir() and any((data / "labels").glob("*.txt")):
        return {ALL: YoloSplit(data / "labels", (data / "images",), names)}
    if names is not None and any(label_file(path).is_file() for path in images_in(data)):
        return {ALL: YoloSplit(data, (data,), names)}
    return {}


def _names_beside(data: Path) -> tuple[str, ...] | None:
    for name in CLASS_FILES:
        if (data / name).is_file():
            lines = (data / name).read_text(encoding="utf-8-sig", errors="replace").splitlines()
            return tuple(line.strip() for line in lines if line.strip())
    return None


def images_in(folder: Path) -> list[Path]:
    """The image files below a folder, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def label_file(image: Path) -> Path:
    """The label file of an image: below `labels` where the image is below `images`, or beside it."""
    parts = list(image.parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
        below = Path(*parts).with_suffix(".txt")
        if below.is_file():
            return below
    return image.with_suffix(".txt")


def read_yolo(split: YoloSplit) -> Annotations:
    """Reads the images and label files of one split; an image without label file has no objects."""
    found: list[Finding] = []
    images, unlabelled, used = [], 0, set()
    files = _image_files(split)
    for path, header in zip(files, read_headers(map(str, files)), strict=True):
        labels = label_file(path)
        if header.code:
            found.append(error(header.code, path, "", header.problem, header.fix))
        image = LabelledImage(path.name, path, header.size)
        if labels.is_file():
            used.add(labels)
            image.objects += _objects(labels, header.size, found)
        else:
            unlabelled += 1
        images.append(image)
    if not images:
        fix = "add images or correct the path"
        found.append(error("no-images", split.file, "", "there are no images", fix))
    names = split.names or _numbered(images)
    found += _unknown_classes(images, names, split)
    found += _loose_labels(split, used)
    if unlabelled:
        problem = f"{unlabelled} images have no label file and count as images without objects"
        found.append(note("no-label-file", split.file, problem, "nothing to do", unlabelled))
    categories = Categories(tuple(range(len(names))), tuple(names), ("",) * len(names))
    return assembled(split.file, "yolo", images, categories, found)


def _image_files(split: YoloSplit) -> list[Path]:
    files: list[Path] = []
    for place in split.places:
        if place.is_dir():
            files += images_in(place)
        elif place.suffix == ".txt":
            lines = place.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            files += [_listed(line.strip(), place, split.file) for line in lines if line.strip()]
        else:
            files.append(place)
    return list(dict.fromkeys(files))


def _listed(line: str, listing: Path, file: Path) -> Path:
    """A path in a list of images: absolute, or relative to the list or to the YAML file."""
    places = [listing.parent / line, file.parent / line]
    return next((place for place in places if place.is_file()), places[0])


def _objects(
    labels: Path, size: tuple[int, int], found: list[Finding]
) -> list[tuple[int, float, float, float, float, bool]]:
    objects = []
    text = labels.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        row = _row(line)
        if row is None:
            problem = f"{line.strip()[:60]!r} is no object"
            fix = (
                "write: class x_center y_center width height, or class and the points of a polygon"
            )
            found.append(error("label-row", labels, f"line {number}", problem, fix))
            continue
        label, x, y, width, height = row
        if max(x, y, x + width, y + height) > 2:
            problem = f"{line.strip()[:60]!r} is not between 0 and 1"
            fix = "divide by the width and height of the image"
            found.append(error("label-not-normalised", labels, f"line {number}", problem, fix))
            continue
        high, wide = size
        objects.append((label, x * wide, y * high, width * wide, height * high, False))
    return objects


def _row(line: str) -> tuple[int, float, float, float, float] | None:
    """The class and the corner and size of a box, or of the box around a polygon, as shares."""
    try:
        label, *numbers = map(float, line.split())
    except ValueError:
        return None
    if label < 0 or label != int(label) or not all(map(math.isfinite, numbers)):
        return None
    if len(numbers) in (4, 5):  # a fifth number is a confidence
        x, y, width, height = numbers[:4]
        if width < 0 or height < 0:
            return None
        return int(label), x - width / 2, y - height / 2, width, height
    if len(numbers) < 6 or len(numbers) % 2:
        return None
    xs, ys = numbers[::2], numbers[1::2]
    return int(label), min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _numbered(images: Sequence[LabelledImage]) -> tuple[str, ...]:
    most = max((row[0] for image in images for row in image.objects), default=0)
    return tuple(str(label) for label in range(min(most, 9999) + 1))


def _unknown_classes(
    images: Sequence[LabelledImage], names: Sequence[str], split: YoloSplit
) -> list[Finding]:
    found = []
    for image in images:
        wrong = [row for row in image.objects if row[0] >= len(names)]
        for row in wrong:
            problem = f"class {row[0]} is not among the {len(names)} names of {split.file}"
            fix = "add the name or correct the class"
            found.append(error("label-class", label_file(image.path), "", problem, fix))
        image.objects = [row for row in image.objects if row[0] < len(names)]
    return found


def _loose_labels(split: YoloSplit, used: set[Path]) -> list[Finding]:
    """Label files that belong to no image."""
    folders = {path.parent for path in used}
    loose = [
        path
        for folder in folders
        for path in folder.glob("*.txt")
        if path not in used and path.name not in CLASS_FILES
    ]
    if not loose:
        return []
    problem = f"{len(loose)} label files have no image, such as {min(loose).name}"
    return [warning("label-without-image", split.file, "", problem, "add the images", len(loose))]
