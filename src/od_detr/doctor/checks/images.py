"""Checks of the image files against what the annotations say."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from od_detr.data.formats.choices import HIDDEN
from od_detr.data.image_formats import IMAGE_SUFFIXES
from od_detr.data.preparation.placing import Listing
from od_detr.doctor.looks import Look
from od_detr.doctor.problem import Problem, Split, of_files, of_images

SMALLEST_SIDE = 32
LONGEST_ASPECT = 5.0
DARK, BRIGHT, FLAT = 20.0, 240.0, 2.0
COMMON_MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "PA")
ALPHA_MODES = ("RGBA", "LA", "PA")
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe"),
    "MPO": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}


@dataclass(frozen=True)
class Seen:
    """An image file and its entry in the annotations: (height, width), zeros if unknown.

    Where `has_entry` is false, an entry without a size has that of the file.
    """

    path: str
    entry: tuple[int, int]
    look: Look
    has_entry: bool

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the file as a viewer shows it, zeros if its header is not sound."""
        return (0, 0) if self.look.header.code else self.look.header.size

    @property
    def is_turned(self) -> bool:
        """Whether the entry fits the pixels before the EXIF rotation, and not after it."""
        stored = self.look.header.stored_size
        return self.size != (0, 0) and self.entry == stored != self.size


def image_problems(split: Split) -> list[Problem]:
    """Every check of single image files; each says in words what is wrong, or nothing."""
    found = split.annotations
    there = [
        (index, Seen(path, _known(size), split.looks[index], found.format == "coco"))
        for index, (path, size) in enumerate(zip(found.paths, found.sizes.tolist(), strict=True))
        if path
    ]
    problems = _repeated_ids(split)
    for code, test in TESTS.items():
        said = {index: words for index, seen in there if (words := test(seen))}
        problems += of_images(code, split, list(said), said.__getitem__)
    return problems


def unlisted_images(splits: Sequence[Split]) -> list[Problem]:
    """Image files in the folders of listed ones that no split lists."""
    listed = {path for split in splits for path in split.annotations.paths if path}
    names = {(os.path.dirname(path), os.path.basename(path)) for path in listed}
    listing = Listing()
    loose = sorted(
        os.path.join(folder, name)
        for folder in {folder for folder, _ in names}
        for name in listing.files(folder or os.curdir)
        if (folder, name) not in names
        and name.lower().endswith(IMAGE_SUFFIXES)
        and not name.startswith(HIDDEN)
    )
    return of_files("image-unlisted", loose, len(listed))


def _repeated_ids(split: Split) -> list[Problem]:
    """Images whose id another one has, and all boxes of that id: nobody knows whose they are.

    Where all entries of an id are of one file they are its boxes, and only later entries are wrong.
    """
    found = split.annotations
    _, group, counts = np.unique(found.image_ids, return_inverse=True, return_counts=True)
    members: dict[int, list[int]] = {}
    for index in np.flatnonzero(counts[group] > 1).tolist():
        members.setdefault(int(group[index]), []).append(index)
    wrong: list[int] = []
    for same in members.values():
        wrong += same[1:] if len({found.names[index] for index in same}) == 1 else same
    boxes = np.flatnonzero(np.isin(found.owners, wrong))
    said = "id {} is that of another image, too"
    problems = of_images(
        "image-id", split, sorted(wrong), lambda index: said.format(found.image_ids[index])
    )
    return [replace(problem, boxes=boxes) for problem in problems]


def _known(size: Sequence[int]) -> tuple[int, int]:
    height, width = size
    return (height, width) if min(height, width) > 0 else (0, 0)


def _header(code: str) -> Callable[[Seen], str]:
    """The test for one kind of problem that readers of headers know."""

    def test(seen: Seen) -> str:
        header = seen.look.header
        return header.problem if header.code == code else ""

    return test


def _no_size(seen: Seen) -> str:
    return "its entry has no size" if seen.has_entry and seen.entry == (0, 0) else ""


def _turned(seen: Seen) -> str:
    return f"is {_by(seen.size)} as a viewer shows it" if seen.is_turned else ""


def _wrong_size(seen: Seen) -> str:
    known = seen.size != (0, 0) and seen.entry != (0, 0)
    if not known or seen.entry == seen.size or seen.is_turned:
        return ""
    return f"is {_by(seen.size)}, but its entry says {_by(seen.entry)}"


def _blank(seen: Seen) -> str:
    low, mean, high = seen.look.grey
    return f"grey value {mean:.0f} everywhere" if high - low < FLAT else ""


def _dark(seen: Seen) -> str:
    low, _, high = seen.look.grey
    dark = high < DARK and high - low >= FLAT
    return f"its brightest part has grey value {high:.0f} of 255" if dark else ""


def _bright(seen: Seen) -> str:
    low, _, high = seen.look.grey
    bright = low > BRIGHT and high - low >= FLAT
    return f"its darkest part has grey value {low:.0f} of 255" if bright else ""


def _small(seen: Seen) -> str:
    small = 0 < min(seen.size) < SMALLEST_SIDE
    return f"is {_by(seen.size)}" if small else ""


def _long(seen: Seen) -> str:
    long = max(seen.size) > LONGEST_ASPECT * min(seen.size)
    return f"is {_by(seen.size)}" if long else ""


def _frames(seen: Seen) -> str:
    # MPO files carry a preview in addition to the image.
    many = seen.look.frames > 1 and seen.look.header.format != "MPO"
    return f"has {seen.look.frames} frames" if many else ""


def _alpha(seen: Seen) -> str:
    return f"is stored as {seen.look.mode}" if seen.look.mode in ALPHA_MODES else ""


def _colours(seen: Seen) -> str:
    strange = seen.look.mode and seen.look.mode not in COMMON_MODES
    return f"is stored as {seen.look.mode}" if strange else ""


def _suffix(seen: Seen) -> str:
    suffix = os.path.splitext(seen.path)[1].lower()
    fits = not seen.look.header.format or suffix in SUFFIXES.get(seen.look.header.format, (suffix,))
    return "" if fits else f"is a {seen.look.header.format}"


def _exif(seen: Seen) -> str:
    turned = seen.look.header.orientation != 1 and not seen.is_turned
    return f"has EXIF orientation {seen.look.header.orientation}" if turned else ""


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]} pixels"


TESTS: dict[str, Callable[[Seen], str]] = {
    "image-missing": _header("image-missing"),
    "image-format": _header("image-format"),
    "image-pixels": _header("image-pixels"),
    "image-too-large": _header("image-too-large"),
    "image-unreadable": _header("image-unreadable"),
    "image-undecodable": lambda seen: seen.look.problem,
    "image-size": _no_size,
    "image-exif-size": _turned,
    "image-wrong-size": _wrong_size,
    "image-blank": _blank,
    "image-dark": _dark,
    "image-bright": _bright,
    "image-small": _small,
    "image-long": _long,
    "image-frames": _frames,
    "image-alpha": _alpha,
    "image-colours": _colours,
    "image-suffix": _suffix,
    "image-exif": _exif,
}
