"""The frames of a video file or of a camera."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from od_detr.errors import InputError, one_line

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
                turns = round(getattr(frame, "rotation", 0) / 90)
                pixels = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
                yield Frame(torch.from_numpy(pixels).permute(2, 0, 1), frame.time or 0.0)
    except av.FFmpegError as error:
        raise InputError(
            f"{path}: cannot be read as a video ({one_line(error)}); replace it"
        ) from error


def number_of_frames(path: str | Path) -> int | None:
    """How many frames the video's header promises; None where it does not say."""
    import av

    with suppress(av.FFmpegError, OSError), av.open(str(path)) as container:
        return next((stream.frames for stream in container.streams.video), 0) or None
    return None


def frames_of_camera(number: int) -> Iterator[Frame]:
    """The frames of a camera, until it is switched off or the program is interrupted.

    OpenCV reads it, which knows the cameras of Linux, macOS and Windows; it is not needed for
    anything else.

    Raises:
        InputError: there is no OpenCV, or no such camera.
    """
    try:
        import cv2  # type: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"camera {number}: cameras are read with OpenCV, which is not installed; run "
            "pip install 'od-detr[camera]'"
        ) from error
    camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise InputError(f"camera {number}: cannot be opened; connect it, or give a video")
        began = time.monotonic()
        while True:
            there, pixels = camera.read()
            if not there:
                return
            rgb = torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1])).permute(2, 0, 1)
            yield Frame(rgb, time.monotonic() - began)
    finally:
        camera.release()
