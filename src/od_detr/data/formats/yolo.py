"""YOLO label files: one an image, one object a line, coordinates as shares of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from od_detr.data.annotations import Annotations, Categories
from od_detr.data.counts import counted
from od_detr.data.findings import Finding, error, note, warning
from od_detr.data.formats.assembled import LabelledImage, assembled
from od_detr.data.formats.choices import NAMES, files_in
from od_detr.data.headers.scan import read_headers
from od_detr.data.image_formats import IMAGE_SUFFIXES
from od_detr.data.walking import walked

CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "names.txt", "_darknet.labels")


@dataclass(frozen=True)
class YoloSplit:
    """Image folders, image files or lists of them, and the class names, where they are known.

    Attributes:
        file: names the split in messages.
        root: the data set's folder, where files of lists are looked up.
        places: folders, images, or text files with a path on each line.
        names: the class of each number.
        keypoints: how many numbers of keypoints follow a box, in a data set of poses.
    """

    file: Path
    root: Path
    places: tuple[Path, ...]
    names: tuple[str, ...] | None
    keypoints: int = 0


def images_in(folder: Path) -> list[Path]:
    """The image files below a folder, sorted."""
    return files_in(folder, *IMAGE_SUFFIXES, below=True)


def found_below(text: str, bases: Sequence[Path], root: Path) -> Path | None:
    """The file or folder that a YOLO data set means by a path, or None.

    It is looked up from each base; then the end of the path is looked up in `root`, as Roboflow
    writes ``../train/images``, CVAT ``data/images/a.jpg``, and notebooks the folder of another
    computer. Windows' separators are understood. `images` alone is no such end if it holds the
    folders of the splits: it is that of all where ``../valid/images`` would be that of one.
    """
    text = text.strip().replace("\\", "/")
    for base in bases:
        if (base / text).exists():
            return base / text
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    for first in range(len(parts)):
        end = root.joinpath(*parts[first:])
        bare = first and parts[first:] in (["images"], ["labels"])
        if end.exists() and not (bare and _holds_splits(end)):
            return end
    return None


def _holds_splits(folder: Path) -> bool:
    """Whether a folder is in it that is called like a split, such as `train` or `val2017`."""
    words = set(chain.from_iterable(NAMES.values()))
    _, folders, _ = next(walked(folder), ("", [], []))
    return any(name.lower().rstrip("0123456789") in words for name in folders)


def label_file(image: Path) -> Path:
    """The label file of an image: in `labels` if the image is in `images`, else beside it."""
    parts = list(image.parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    candidates = [image.with_suffix(".txt"), image.with_suffix(".TXT")]
    if places:
        parts[places[-1]] = "labels"
        below = Path(*parts)
        candidates = [below.with_suffix(".txt"), below.with_suffix(".TXT"), *candidates]
    return next((file for file in candidates if file.is_file()), image.with_suffix(".txt"))


def read_yolo(split: YoloSplit) -> Annotations:
    """Reads the images and label files of one split; an image without label file has no objects."""
    found: list[Finding] = []
    images, unlabelled, used = [], 0, set()
    files = _image_files(split)
    for path, header in zip(files, read_headers(map(str, files)), strict=True):
        labels = label_file(path)
        if header.code:
            found.append(error(header.code, path, "", header.problem, header.fix))
        image = LabelledImage(path.name, str(path), header.size)
        if labels.is_file():
            used.add(labels)
            image.objects += _objects(labels, header.size, split.keypoints, found)
        else:
            unlabelled += 1
        images.append(image)
    if not images:
        fix = "add images or correct the path"
        found.append(error("no-images", split.file, "", "there are no images", fix))
    names = split.names or _numbered(images)
    found += _unknown_classes(images, names, split)
    found += _loose_labels(split, files, used)
    if unlabelled:
        problem = f"{counted(unlabelled, 'image')} without a label file, taken to show no object"
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
            bases = (place.parent, split.root)
            files += [
                found_below(line, bases, split.root) or place.parent / line.strip()
                for line in lines
                if line.strip()
            ]
        else:
            files.append(place)
    return list(dict.fromkeys(files))


def _objects(
    labels: Path, size: tuple[int, int], keypoints: int, found: list[Finding]
) -> list[tuple[int, float, float, float, float, bool]]:
    objects = []
    text = labels.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        row = _row(line, keypoints)
        if row is None:
            problem = f"{line.strip()[:60]!r} does not describe an object"
            fix = "write class, x and y of the centre, width, height; or class and polygon points"
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


def _row(line: str, keypoints: int) -> tuple[int, float, float, float, float] | None:
    """The class and the corner and size of a box, or of the box around a polygon, as shares."""
    try:
        label, *numbers = map(float, line.split())
    except ValueError:
        return None
    if not all(map(math.isfinite, (label, *numbers))) or not 0 <= label == int(label) < 2**31:
        return None
    # A fifth number is a confidence.
    if len(numbers) in (4, 5) or (keypoints and len(numbers) == 4 + keypoints):
        x, y, width, height = numbers[:4]
        if width < 0 or height < 0:
            return None
        return int(label), x - width / 2, y - height / 2, width, height
    if len(numbers) < 6 or len(numbers) % 2 or keypoints:
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
            found.append(error("label-class", label_file(Path(image.path)), "", problem, fix))
        image.objects = [row for row in image.objects if row[0] < len(names)]
    return found


def _loose_labels(split: YoloSplit, images: Sequence[Path], used: set[Path]) -> list[Finding]:
    """Label files that belong to no image, neither of this split nor of another one beside it."""
    loose = {
        path
        for folder in {path.parent for path in used}
        for path in files_in(folder, ".txt")
        if path not in used and path.name not in CLASS_FILES
    }
    if loose:  # lists divide the images of one folder
        folders = {image.parent for image in images}
        beside = (path for folder in folders for path in files_in(folder, *IMAGE_SUFFIXES))
        loose -= {label_file(path) for path in beside}
    if not loose:
        return []
    problem = f"{len(loose)} label files have no image, such as {min(loose).name}"
    return [warning("label-without-image", split.file, "", problem, "add the images", len(loose))]
