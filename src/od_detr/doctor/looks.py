"""What each image file is: its header, and how it looks if it is decoded. Works in parallel."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from od_detr.data.headers.header import Header, read_header
from od_detr.data.headers.scan import read_headers
from od_detr.data.image_formats import FORMATS
from od_detr.data.images import read_image
from od_detr.errors import InputError

THUMB = 16  # pixels a side of the picture by which near-duplicates are found
CHUNK = 32  # images that a process takes at a time
FEWEST = 256  # images for which processes are worth starting


@dataclass(frozen=True)
class Look:
    """What an image file is.

    Attributes:
        header: format, size and orientation, or what is wrong with the header.
        mode: Pillow's name of the pixel format; empty unless the image was decoded.
        frames: number of frames; 1 unless the image was decoded.
        problem: why the pixels cannot be decoded; empty if they can or were not.
        digest: hash of the file's content; empty unless the image was decoded.
        thumb: the image as `THUMB` x `THUMB` grey values; empty unless the image was decoded.
        grey: smallest, mean and largest of these grey values.
    """

    header: Header = field(default_factory=Header)
    mode: str = ""
    frames: int = 1
    problem: str = ""
    digest: bytes = b""
    thumb: bytes = b""
    grey: tuple[float, float, float] = (0.0, 128.0, 255.0)


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
    if not decode:
        advance(len(paths))
        return [Look(header) for header in read_headers(paths)]
    chunks = [list(paths[first : first + CHUNK]) for first in range(0, len(paths), CHUNK)]
    found: list[Look] = []
    for part in _mapped(_looks_at, chunks, workers if len(paths) >= FEWEST else 0):
        found += part
        advance(len(part))
    return found


def _looks_at(paths: list[str]) -> list[Look]:
    return [look_at(path) if path else Look() for path in paths]


def _mapped(
    function: Callable[[list[str]], list[Look]], chunks: Sequence[list[str]], workers: int
) -> Iterator[list[Look]]:
    if workers < 2:
        yield from map(function, chunks)
        return
    # A fork server shares what it imported and, unlike a fork, is safe with other threads.
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(workers, context) as pool:
        yield from pool.map(function, chunks)


def look_at(path: str) -> Look:
    """Reads and decodes one image file."""
    header = read_header(path)
    if header.code:
        return Look(header)
    try:
        mode, frames = _described(path)
        pixels = read_image(path).permute(1, 2, 0).numpy()
        digest = hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()
    except (InputError, OSError) as error:
        reason = str(error).removeprefix(f"{path}: ").partition(";")[0]
        return Look(header, problem=reason)
    thumb = _thumb(pixels)
    grey = (float(thumb.min()), float(thumb.mean()), float(thumb.max()))
    return Look(header, mode, frames, "", digest, thumb.round().astype(np.uint8).tobytes(), grey)


def _described(path: str) -> tuple[str, int]:
    """The pixel format and the number of frames of an image whose header is sound."""
    with Image.open(path, formats=FORMATS) as image:
        mode = "RGBA" if "transparency" in image.info else image.mode
        return mode, int(getattr(image, "n_frames", 1))


def _thumb(pixels: UInt8[np.ndarray, "H W 3"]) -> np.ndarray:
    """The image as THUMB x THUMB grey values, each the mean of its patch."""
    height, width = pixels.shape[:2]
    # Of a large image, every n-th pixel is enough.
    step = max(1, min(height, width) // (8 * THUMB))
    red, green, blue = np.moveaxis(pixels[::step, ::step].astype(np.float32), 2, 0)
    grey = (red + green + blue) / 3  # much faster than a mean over so short an axis
    rows = np.linspace(0, grey.shape[0], THUMB, endpoint=False).astype(int)
    columns = np.linspace(0, grey.shape[1], THUMB, endpoint=False).astype(int)
    sums = np.add.reduceat(np.add.reduceat(grey, rows, 0), columns, 1)
    # An image narrower than THUMB repeats pixels; reduceat then takes the pixel itself.
    tall = np.maximum(np.diff([*rows, grey.shape[0]]), 1)
    wide = np.maximum(np.diff([*columns, grey.shape[1]]), 1)
    return sums / (tall[:, None] * wide[None])
