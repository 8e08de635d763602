"""The frames of a video file or of a camera."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from od_detr.errors import InputError, one_line

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")


@dataclass(frozen=True)
class Frame:
    """One frame, as a player shows it.

    Attributes:
        pixels: RGB.
        seconds: when it is shown, from the start of the video.
    """

    pixels: UInt8[Tensor, "3 H W"]
    seconds: float


def is_video(source: Any) -> bool:
    """Whether a path is called like a video."""
    return isinstance(source, str | Path) and Path(source).suffix.lower() in SUFFIXES


def is_camera(source: Any) -> bool:
    """Whether a source is the number of a camera, and no file or folder of that name."""
    if isinstance(source, str):
        return source.isdecimal() and not Path(source).exists()
    return isinstance(source, int) and not isinstance(source, bool) and source >= 0


def frames_of(path: str | Path) -> Iterator[Frame]:
    """The frames of a video, one after another.

    Raises:
        InputError: the file is missing, holds no video, or cannot be decoded.
    """
    import av

    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; give a video")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: holds no video stream; give another file")
            for frame in container.decode(video=0):
                yield Frame(_pixels(frame), frame.time or 0.0)
    except av.FFmpegError as error:
        raise InputError(
            f"{path}: cannot be read as a video ({one_line(error)}); replace it"
        ) from error


def _pixels(frame: av.VideoFrame) -> UInt8[Tensor, "3 H W"]:
    """A decoded frame, turned as its video says."""
    turns = round(getattr(frame, "rotation", 0) / 90)
    pixels = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def number_of_frames(path: str | Path) -> int | None:
    """How many frames the video's header promises; None where it does not say."""
    import av

    with suppress(av.FFmpegError, OSError), av.open(str(path)) as container:
        return next((stream.frames for stream in container.streams.video), 0) or None
    return None


def frames_of_camera(number: int) -> Iterator[Frame]:
    """The frames of a camera, until it is switched off or the program is interrupted.

    The camera is opened at once, not when the first frame is asked for.

    Args:
        number: counts the cameras of this computer from 0.

    Raises:
        InputError: there is no such camera, or another program uses it.
    """
    with _camera_explained(number):
        container = _camera(number)
    return _frames_until_it_ends(container, number)


def _frames_until_it_ends(container: InputContainer, number: int) -> Iterator[Frame]:
    began = time.monotonic()
    with _camera_explained(number), container:
        for frame in container.decode(video=0):
            yield Frame(_pixels(frame), time.monotonic() - began)


@contextmanager
def _camera_explained(number: int) -> Iterator[None]:
    import av

    try:
        yield
    except (av.FFmpegError, ImportError, OSError, ValueError) as error:
        raise InputError(
            f"camera {number}: cannot be read ({one_line(error)}); connect it, close programs "
            "that use it, or give a video"
        ) from error


def _camera(number: int) -> InputContainer:
    """Opens a camera by the operating system's own interface, which FFmpeg knows."""
    import av

    if sys.platform == "darwin":
        return av.open(f"{number}:none", format="avfoundation", options={"framerate": "30"})
    if sys.platform == "win32":
        from av.device import enumerate_input_devices

        found = [each for each in enumerate_input_devices("dshow") if "video" in each.media_types]
        if number >= len(found):
            raise OSError(f"{len(found)} cameras are connected")
        return av.open(f"video={found[number].name}", format="dshow")
    return av.open(f"/dev/video{number}", format="v4l2")
