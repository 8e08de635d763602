"""What each image file is: its header, and how it looks if it is decoded. Works in parallel."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from od_detr.data.images import FORMATS, MAX_PIXELS, read_image
from od_detr.errors import InputError

THUMB = 16  # pixels a side of the picture by which near-duplicates are found
CHUNK = 32  # images that a process takes at a time
FEWEST = 256  # images for which processes are worth starting


@dataclass(frozen=True)
class Look:
    """What an image file is.

    Attributes:
        size: (height, width) in pixels as a viewer shows it; (0, 0) if it cannot be read.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        format: Pillow's name of the format; empty if it cannot be read.
        mode: Pillow's name of the pixel format.
        frames: number of frames.
        problem: why it cannot be read or decoded; empty if it can.
        digest: hash of the file's content; empty unless it was decoded.
        thumb: the image as `THUMB` x `THUMB` grey values; empty unless it was decoded.
        grey: darkest, mean and brightest grey value of the image, each averaged over small patches.
    """

    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    format: str = ""
    mode: str = ""
    frames: int = 1
    problem: str = ""
    digest: bytes = b""
    thumb: bytes = b""
    grey: tuple[float, float, float] = (0.0, 128.0, 255.0)

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) of the pixels as they are stored, before the EXIF rotation."""
        height, width = self.size
        return (width, height) if self.orientation >= 5 else (height, width)


def cores() -> int:
    """The processor cores that this process may use."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def looks(
    paths: Sequence[str],
    decode: bool,
    workers: int,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Look]:
    """Looks at image files, in order.

    Args:
        paths: the files; an empty path stands for a file that is not there.
        decode: whether to decode the pixels, or to read the headers alone.
        workers: processes that share the work; few files are read without any.
        advance: called with the number of files read since the last call.
    """
    look = decoded_look if decode else header_look
    chunks = [list(paths[first : first + CHUNK]) for first in range(0, len(paths), CHUNK)]
    found: list[Look] = []
    for part in _mapped(_Looker(look), chunks, workers if len(paths) >= FEWEST else 0):
        found += part
        advance(len(part))
    return found


@dataclass(frozen=True)
class _Looker:
    """Looks at a chunk of files; a class, because processes are sent it."""

    look: Callable[[str], Look]

    def __call__(self, paths: list[str]) -> list[Look]:
        return [self.look(path) if path else Look(problem="is not there") for path in paths]


def _mapped(
    function: Callable[[list[str]], list[Look]], chunks: Sequence[list[str]], workers: int
) -> Iterator[list[Look]]:
    if workers < 2:
        yield from map(function, chunks)
        return
    # A fork server shares what it imported and, unlike a fork, is safe beside other threads.
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(workers, context) as pool:
        yield from pool.map(function, chunks)


def header_look(path: str) -> Look:
    """Reads the header of an image file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return Look(problem=f"{image.width} x {image.height} pixels are too many")
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            orientation = orientation if orientation in range(1, 9) else 1
            width, height = reversed(image.size) if orientation >= 5 else image.size
            mode = "RGBA" if "transparency" in image.info else image.mode
            frames = getattr(image, "n_frames", 1)
            return Look((height, width), orientation, image.format or "", mode, frames)
    # Pillow's parsers raise nearly anything on a hostile file: OSError, SyntaxError, struct.error…
    except Exception as error:
        return Look(problem=_reason(path, error))


def decoded_look(path: str) -> Look:
    """Reads and decodes an image file."""
    look = header_look(path)
    if look.problem:
        return look
    try:
        pixels = read_image(path).permute(1, 2, 0).numpy()
        digest = hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()
    except (InputError, OSError) as error:
        return replace(look, problem=str(error).removeprefix(f"{path}: ").partition(";")[0])
    thumb = _thumb(pixels)
    grey = (float(thumb.min()), float(thumb.mean()), float(thumb.max()))
    return replace(look, digest=digest, thumb=thumb.round().astype(np.uint8).tobytes(), grey=grey)


def _reason(path: str, error: Exception) -> str:
    if not Path(path).is_file():
        return "is not there"
    if not Path(path).stat().st_size:
        return "the file is empty"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.UnidentifiedImageError):
        return "is no image of a supported format"
    return " ".join(str(error).replace(repr(path), "").split()) or type(error).__name__


def _thumb(pixels: UInt8[np.ndarray, "H W 3"]) -> np.ndarray:
    """The image as THUMB x THUMB grey values, each the mean of its patch."""
    height, width = pixels.shape[:2]
    # Of a large image, every n-th pixel is enough.
    step = max(1, min(height, width) // (8 * THUMB))
    green = pixels[::step, ::step].mean(2, dtype=np.float32)
    rows = np.linspace(0, green.shape[0], THUMB, endpoint=False).astype(int)
    columns = np.linspace(0, green.shape[1], THUMB, endpoint=False).astype(int)
    sums = np.add.reduceat(np.add.reduceat(green, rows, 0), columns, 1)
    # An image narrower than THUMB repeats pixels; reduceat then takes the pixel itself.
    tall = np.maximum(np.diff([*rows, green.shape[0]]), 1)
    wide = np.maximum(np.diff([*columns, green.shape[1]]), 1)
    return sums / (tall[:, None] * wide[None])
