"""Image headers: format and size of a file without decoding its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from od_detr.data.images import FORMATS, MAX_PIXELS

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"),
    *(".avif", ".heic", ".heif", ".jpe", ".dib"),
)


@dataclass(frozen=True)
class Header:
    """(height, width) as a viewer shows the image, or (0, 0) and what is wrong."""

    size: tuple[int, int]
    format: str = ""
    problem: str = ""


def read_header(path: str | Path) -> Header:
    """The size of an image after its EXIF rotation."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return Header((0, 0), "", f"{image.width} x {image.height} pixels are too many")
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            width, height = reversed(image.size) if turned else image.size
            return Header((height, width), image.format or "")
    except OSError as error:
        reason = error.strerror or "no image of a supported format"
        return Header((0, 0), "", reason)
    # Pillow's parsers raise nearly anything on a hostile file: SyntaxError, struct.error, KeyError…
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return Header((0, 0), "", f"cannot be read as an image ({reason})")
