"""The frames of a video file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from od_detr.errors import InputError

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")


def is_video(source: Any) -> bool:
    """Whether a path is called like a video."""
    return isinstance(source, str | Path) and Path(source).suffix.lower() in SUFFIXES


def frames_of(path: str | Path) -> Iterator[UInt8[Tensor, "3 H W"]]:
    """The RGB frames of a video as a player shows them, one after another.

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
                yield torch.from_numpy(pixels).permute(2, 0, 1)
    except av.FFmpegError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as a video ({reason}); replace it") from error
