"""The header of one image file, and whether the file is complete."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from PIL import Image, UnidentifiedImageError

from od_detr.data.image_formats import FORMATS, REPLACE, described_content
from od_detr.data.images import (
    MAX_PIXELS,
    orientation_of,
    stored_size_of,
    unsuitable_pixels,
    upright_size,
)
from od_detr.errors import one_line

# The bytes that end a file of this format. Some programs append a few bytes of their own.
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
TAIL = 64

# What may hold the orientation of a PNG: how its chunk or its text begins. ExifTool and others
# append it to the file, where it is found in so many last bytes.
ORIENTED = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
APPENDED = 1 << 12

# Findings about an image's file, and not about what is written of it: a reader's `image-file`
# (there is none) and the codes of `Header`.
OF_FILES = frozenset(
    (
        "image-file",
        "image-format",
        "image-missing",
        "image-pixels",
        "image-too-large",
        "image-unreadable",
    )
)

# Findings about an image whose size is not the one that is written.
OF_SIZES = frozenset(("image-exif-size", "image-wrong-size"))


class Header(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the first bytes of an image file say, and the last ones of a JPEG or PNG.

    Attributes:
        height: of the pixels as stored; 0 where the header cannot be read.
        width: the same.
        orientation: EXIF orientation, 1 to 8; 5 to 8 turn the image by a quarter.
        format: Pillow's name of the format, such as "JPEG".
        code: kind of the problem, "" if there is none: `image-missing`, `image-unreadable`,
            `image-format`, `image-pixels` (floating point or 32 bits) or `image-too-large`.
        problem: what is wrong, without the file's name.
        fix: what the user can do about it.
    """

    height: int = 0
    width: int = 0
    orientation: int = 1
    format: str = ""
    code: str = ""
    problem: str = ""
    fix: str = ""

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) of the pixels before the EXIF rotation."""
        return self.height, self.width

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as a viewer shows the image, and as `read_image` returns it."""
        return upright_size(self.stored_size, self.orientation)


def read_header(path: str | Path) -> Header:
    """The header of an image file; what is wrong with the file is in its `problem`.

    No pixels are decoded, except in two cases. Where a JPEG or PNG does not end as it should,
    decoding distinguishes a truncated file from one with something appended. Where a PNG says its
    orientation behind the pixels, decoding them leads to it.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return _header(image)
    except UnidentifiedImageError:
        return _unidentified(path)
    # Pillow's parsers raise nearly anything on a hostile file: SyntaxError, struct.error, …
    except Exception as error:
        if isinstance(error, OSError) and error.strerror is not None:
            code = "image-missing" if isinstance(error, FileNotFoundError) else "image-unreadable"
            return Header(code=code, problem=error.strerror, fix="put the image back")
        problem = f"cannot be read as an image ({one_line(error)})"
        return Header(code="image-unreadable", problem=problem, fix=REPLACE)


def _header(image: Image.Image) -> Header:
    width, height = image.size
    if width * height > MAX_PIXELS:
        problem = f"{width} x {height} pixels are too many"
        return Header(code="image-too-large", problem=problem, fix="make the image smaller")
    if not _ends_well(image) or _says_more_behind(image):
        image.load()
    found = Header(*stored_size_of(image), orientation_of(image), image.format or "")
    if unsuitable := unsuitable_pixels(image):
        problem, fix = unsuitable
        return msgspec.structs.replace(found, code="image-pixels", problem=problem, fix=fix)
    return found


def _ends_well(image: Image.Image) -> bool:
    """Whether the file ends with the mark of its format; true of formats without one."""
    end = ENDS.get(image.format or "")
    return end is None or end in _last(image, TAIL)


def _says_more_behind(image: Image.Image) -> bool:
    """Whether a PNG seems to say its orientation behind its pixels."""
    if image.format != "PNG" or "exif" in image.info:
        return False
    appended = _last(image, APPENDED)
    return any(mark in appended for mark in ORIENTED)


def _last(image: Image.Image, count: int) -> bytes:
    """The last bytes of an open image's file."""
    file = getattr(image, "fp", None)
    assert file is not None  # until it is decoded
    place = file.tell()
    file.seek(max(0, file.seek(0, os.SEEK_END) - count))
    last = file.read(count)
    file.seek(place)
    return last


def _unidentified(path: str | Path) -> Header:
    try:
        with open(path, "rb") as file:
            content, fix = described_content(file.read(512))
    except OSError as error:
        problem = error.strerror or "cannot be read"
        return Header(code="image-unreadable", problem=problem, fix="put the image back")
    return Header(code="image-format", problem=content, fix=fix)
