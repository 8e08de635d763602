"""Image files to RGB pixels, whatever they are, without ever trusting them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from od_detr.errors import InputError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

# Pillow only warns at this many pixels and refuses at twice as many; a detector has no use for either.
MAX_PIXELS = 89_478_485
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> UInt8[Tensor, "3 H W"]:
    """Decodes an image to RGB as a viewer shows it: turned by its EXIF orientation, first frame, alpha dropped.

    16-bit grey is scaled to 8 bits over its full range. The tensor's memory is laid out channels last,
    as decoders write and resizing reads it fastest.

    Args:
        path: a JPEG, PNG, WebP, BMP, TIFF, GIF or PPM file.
        size: the (height, width) the image must have.

    Raises:
        InputError: the file is missing, no image, truncated, larger than `MAX_PIXELS`, or not of this `size`.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; put the image back") from error
    try:
        pixels = _decode(path, data, size)
    except InputError:
        raise
    # Pillow's decoders raise nearly anything on a hostile file: OSError, SyntaxError, struct.error, KeyError…
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: cannot be read as an image ({reason}); replace or remove the file"
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _decode(
    path: str | Path, data: bytes, size: tuple[int, int] | None
) -> UInt8[np.ndarray, "H W 3"]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise InputError(
                f"{path}: {image.width} x {image.height} pixels are too many; make the image smaller"
            )
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        turned = orientation in (5, 6, 7, 8)
        width, height = reversed(image.size) if turned else image.size
        if size is not None and size != (height, width):
            hint = " after its EXIF rotation" if turned and size == (width, height) else ""
            raise InputError(
                f"{path}: is {width} x {height} pixels{hint}, but its entry says width {size[1]} and height {size[0]}; "
                "correct the entry and its boxes"
            )
        if (
            simplejpeg is not None
            and image.format == "JPEG"
            and image.mode in ("RGB", "L")
            and orientation == 1
        ):
            with contextlib.suppress(
                ValueError
            ):  # it refuses some files that are merely untidy; Pillow decides which
                return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
        return _to_rgb(path, ImageOps.exif_transpose(image))


def _to_rgb(path: str | Path, image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if image.mode == "F":
        raise InputError(
            f"{path}: holds 32-bit floating point pixels; save the image with 8 bits a channel"
        )
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, 2)
    if image.mode == "P":
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))
