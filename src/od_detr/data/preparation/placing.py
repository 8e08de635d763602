"""Where the image files of a split are: found in directory listings, never outside the data set."""

from __future__ import annotations

import os
import re
import reprlib
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote

import numpy as np

from od_detr.data.annotations import Annotations, Strings
from od_detr.data.findings import ADD_IMAGE, Finding, error, limited, warning

# A name with one of these may lead out of its folder, or separate its parts as Windows does.
SUSPICIOUS = re.compile(r"^/|\.\.|[:\\]")


class Listing:
    """Names of the files below some folders; each directory is read once, and no file is opened.

    Attributes:
        links: the paths that are symbolic links, of the folders that were read so far.
    """

    def __init__(self) -> None:
        self._files: dict[str, set[str]] = {}
        self.links: set[str] = set()

    def files(self, folder: str) -> set[str]:
        """The names of the files in a folder."""
        if folder not in self._files:
            try:
                with os.scandir(folder) as entries:
                    found = [
                        entry
                        for entry in entries
                        # A link in a loop is no file, but `entry.is_file()` raises.
                        if entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path)
                    ]
            except (OSError, ValueError):
                found = []
            self._files[folder] = {entry.name for entry in found}
            self.links |= {entry.path for entry in found if entry.is_symlink()}
        return self._files[folder]

    def find(self, folder: str, name: str) -> str | None:
        """The path of a file below a folder."""
        head, tail = os.path.split(name)
        path = os.path.join(folder, name)
        if tail in self.files(os.path.join(folder, head) if head else folder):
            return path
        # Some file systems find names that are not listed, for instance in another case.
        return path if os.path.isfile(path) else None


def placed(
    annotations: Annotations, folders: Sequence[Path], root: Path | None = None
) -> Annotations:
    """Looks each `file_name` up below the first of these folders that has it.

    Missing files and sizes that are not positive are errors; a file that is listed twice and links
    that lead out of `root` are counted.
    """
    listing, places = Listing(), [str(folder) for folder in folders]
    found: list[Finding] = []
    # Nearly all names stand in the first folder; a name that is listed there is no path.
    present, first = listing.files(places[0]), os.path.join(places[0], "")
    paths = [
        first + name if name in present else _path(annotations, image, name, places, listing, found)
        for image, name in enumerate(annotations.names)
    ]
    if len(paths) > 1 and not any(paths):
        fix = f"put the images there: none of {len(paths)} is found"
        found = [replace(each, fix=fix) if each.fix == ADD_IMAGE else each for each in found]
    found += _sizes(annotations)
    found += _listed_twice(annotations, paths)
    found += _links(annotations, paths, listing, root)
    return replace(annotations, paths=Strings.of(paths)).with_findings(limited(found))


def _path(
    annotations: Annotations,
    image: int,
    name: str,
    folders: Sequence[str],
    listing: Listing,
    found: list[Finding],
) -> str:
    if not name:
        return ""  # reported by the reader
    if SUSPICIOUS.search(name):
        if _leads_out(name):
            problem, fix = "leads out of the image folder", "write a path below that folder"
            found.append(_wrong_name(annotations, image, name, problem, fix))
            return ""
        names = (name, name.replace("\\", "/"))
    else:
        names = (name,)
    for each in (*names, *_other_spellings(names[-1])):
        for folder in folders:
            path = listing.find(folder, each)
            if path is not None:
                return path
    problem = f"is not a file below {' or '.join(folders)}"
    found.append(_wrong_name(annotations, image, name, problem, ADD_IMAGE))
    return ""


def _other_spellings(name: str) -> list[str]:
    """An accented letter may be one sign or two, and a web tool may have quoted the name."""
    if name.isascii() and "%" not in name:
        return []
    unquoted = unquote(name)
    spellings = [unquoted] if not _leads_out(unquoted) else [name]
    return [unicodedata.normalize(form, spellings[0]) for form in ("NFC", "NFD")]


def _leads_out(name: str) -> bool:
    climbs = ".." in re.split(r"[/\\]", name)
    return name.startswith("/") or bool(PureWindowsPath(name).drive) or climbs


def _wrong_name(annotations: Annotations, image: int, name: str, problem: str, fix: str) -> Finding:
    record = f"image {annotations.image_ids[image]}"
    text = f"file_name {reprlib.repr(name)} {problem}"
    return error("image-file", annotations.file, record, text, fix)


def _sizes(annotations: Annotations) -> list[Finding]:
    known = any(finding.code in ("image-height", "image-width") for finding in annotations.findings)
    wrong = [] if known else np.flatnonzero((annotations.sizes < 1).any(1)).tolist()
    return [
        error(
            "image-size",
            annotations.file,
            f"image {annotations.image_ids[image]}",
            f"width and height {annotations.sizes[image, 1]} and {annotations.sizes[image, 0]} "
            "are not positive",
            "write the size in pixels",
        )
        for image in wrong
    ]


def _listed_twice(annotations: Annotations, paths: Sequence[str]) -> list[Finding]:
    if len(set(paths)) == len(paths):
        return []
    first: dict[str, int] = {}
    again = [
        image for image, path in enumerate(paths) if path and first.setdefault(path, image) != image
    ]
    if not again:
        return []
    ids = annotations.image_ids
    return [
        warning(
            "image-listed-twice",
            annotations.file,
            f"image {ids[again[0]]}",
            f"file_name {annotations.names[again[0]]!r} is that of image "
            f"{ids[first[paths[again[0]]]]} too ({len(again)} files are listed more than once)",
            "list each file once, or the image is trained on twice",
            len(again),
        )
    ]


def _links(
    annotations: Annotations, paths: Sequence[str], listing: Listing, root: Path | None
) -> list[Finding]:
    """Links of single files that lead out of the data set; a whole folder may be linked."""
    if root is None or not listing.links:
        return []
    folders = {os.path.dirname(path) for path in paths if path}
    inside = tuple(os.path.realpath(each) + os.sep for each in (root, *folders))
    out = [
        image
        for image, path in enumerate(paths)
        if path in listing.links and not os.path.realpath(path).startswith(inside)
    ]
    if not out:
        return []
    return [
        warning(
            "image-link",
            annotations.file,
            f"image {annotations.image_ids[out[0]]}",
            f"file_name {annotations.names[out[0]]!r} is a link that leads out of {root} "
            f"({len(out)} such links)",
            "copy the images into the data set's folder",
            len(out),
        )
    ]
