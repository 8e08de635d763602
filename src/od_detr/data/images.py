"""Image files to RGB pixels, whatever they are, without ever trusting them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.Image import Transpose
from PIL.TiffImagePlugin import IMAGELENGTH as TIFF_HEIGHT
from PIL.TiffImagePlugin import IMAGEWIDTH as TIFF_WIDTH
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from od_detr.data.image_formats import FORMATS, described_content
from od_detr.errors import InputError, one_line

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

# Pillow only warns at this many and refuses twice as many; a detector has no use for either.
MAX_PIXELS = 89_478_485
TWELVE_BITS = 1 << 12
# What shows an image upright, by its EXIF orientation.
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> UInt8[Tensor, "3 H W"]:
    """Decodes an image to RGB as a viewer shows it.

    It is turned by its EXIF orientation, see `orientation_of`; of several frames the first is
    taken, and alpha is dropped. 16-bit grey is scaled to 8 bits over its full range; images that
    use the lowest 12 bits alone are refused, as are pixels of 32 bits, whose range is unknown. The
    tensor's memory is laid out channels last, as decoders write and resizing reads it fastest.

    Args:
        path: a JPEG, PNG, WebP, BMP, TIFF, GIF or PPM file; AVIF and HEIC where Pillow can.
        size: the (height, width) the image must have.

    Raises:
        InputError: the file is missing, no image, truncated, larger than `MAX_PIXELS`, of
            unknown range, not of this `size`, or its pixels not of the size of its header.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a ValueError for a name with NUL
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path}: {reason}; check the path") from error
    try:
        pixels = _decode(path, data, size)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        content, fix = described_content(data[:512])
        raise InputError(f"{path}: {content}; {fix}") from error
    # Pillow's decoders raise nearly anything on a hostile file: SyntaxError, struct.error, …
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read as an image ({one_line(error)}); replace or remove the file"
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, as far as what was read of the file says it.

    A PNG may say it behind its pixels, so that it is known only after they are decoded.
    """
    # A PNG's own getexif decodes the pixels to find EXIF data behind them.
    value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return int(value) if value in range(1, 9) else 1


def stored_size_of(image: Image.Image) -> tuple[int, int]:
    """(height, width) of the pixels before the EXIF rotation, as the image's header says it."""
    if isinstance(image, TiffImageFile):  # its `size` is that after the rotation
        return image.tag_v2[TIFF_HEIGHT], image.tag_v2[TIFF_WIDTH]
    return image.height, image.width


def upright_size(stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(height, width) as a viewer shows an image that is stored with this (height, width)."""
    return (stored[1], stored[0]) if orientation >= 5 else stored


def unsuitable_pixels(image: Image.Image) -> tuple[str, str] | None:
    """What is wrong with pixels whose range cannot be known, and how to fix it."""
    fix = "save the image with 8 bits a channel"
    if image.mode == "F":
        return "holds 32-bit floating point pixels", fix
    if image.mode == "I" and image.format == "TIFF":
        return "holds 32-bit or signed integer pixels", fix
    return None


def _decode(
    path: str | Path, data: bytes, size: tuple[int, int] | None
) -> UInt8[np.ndarray, "H W 3"]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            problem = f"{image.width} x {image.height} pixels are too many"
            raise InputError(f"{path}: {problem}; make the image smaller")
        if image.format == "PNG":
            image.load()
        orientation, stored = orientation_of(image), stored_size_of(image)
        _check_size(path, stored, orientation, size)
        plain = image.format == "JPEG" and image.mode in ("RGB", "L") and orientation == 1
        pixels = None
        if plain and simplejpeg is not None:
            # It refuses some files that are merely untidy; Pillow decides which.
            with contextlib.suppress(ValueError):
                pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
        if pixels is None:
            pixels = rgb_of(image, path, orientation)
    # Boxes and the size of a batch go by the header, so that no decoder may have another opinion.
    if pixels.shape[:2] != upright_size(stored, orientation):
        height, width = upright_size(stored, orientation)
        raise InputError(
            f"{path}: is {width} x {height} pixels by its header, but {pixels.shape[1]} x "
            f"{pixels.shape[0]} when decoded; save the image again"
        )
    return pixels


def _check_size(
    path: str | Path, stored: tuple[int, int], orientation: int, size: tuple[int, int] | None
) -> None:
    height, width = upright_size(stored, orientation)
    if size is None or size == (height, width):
        return
    hint = " after its EXIF rotation" if size == stored else ""
    raise InputError(
        f"{path}: is {width} x {height} pixels{hint}, but its entry says width {size[1]} and "
        f"height {size[0]}; correct the entry and its boxes"
    )


def rgb_of(
    image: Image.Image, name: str | Path, orientation: int = 1
) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of an open image, see `read_image`.

    Args:
        image: of any mode.
        name: what messages call it.
        orientation: turns it by this EXIF orientation; a TIFF is turned by its own in any case.

    Raises:
        InputError: pixels of unknown range.
    """
    if unsuitable := unsuitable_pixels(image):
        raise InputError(f"{name}: {'; '.join(unsuitable)}")
    if orientation in TURNS and image.format != "TIFF":  # Pillow turns a TIFF as it decodes it
        image = image.transpose(TURNS[orientation])
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        if 0 < grey.max() < TWELVE_BITS:
            raise InputError(
                f"{name}: has 16-bit pixels of at most {grey.max()}, so that it would be nearly "
                "black; scale them to the range 0 to 65535, or save the image with 8 bits a channel"
            )
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, 2)
    if image.mode == "P":
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))
