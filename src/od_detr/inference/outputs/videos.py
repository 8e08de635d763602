"""Drawn copies of videos, with the sound of the original."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from od_detr.errors import InputError, one_line
from od_detr.inference.outputs.output import Found

CLOCK = Fraction(1, 90_000)  # seconds; the unit of time stamps in most video files
MILLISECOND = 90  # of these units: two frames are at least so far apart, since Matroska counts them
SAME_SUFFIX = (".mp4", ".mov")  # others become Matroska, which holds sound of any kind


def video_name(file: Path, name: str) -> str:
    """The name of the drawn copy of a video."""
    suffix = file.suffix.lower()
    return name + (suffix if suffix in SAME_SUFFIX else ".mkv")


class Videos:
    """A drawn copy of each video, in H.264, with the sound copied unchanged.

    Frames keep their times, and a video that ends early is complete up to there.

    Args:
        folder: folder to write.
        classes: name of each class id.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.folder, self.classes = folder, classes
        self._file: Path | None = None
        self._writer: VideoWriter | None = None

    def add(self, found: Found) -> None:
        """Draws one frame; the first frame of another video ends the one before it."""
        from od_detr.reporting.drawing import draw

        if found.frame is None:
            return
        picture = draw(found.picture(), found.detections, self.classes)
        if self._writer is None or self._file != found.file:
            self.close()
            path = self.folder / video_name(found.file, found.name)
            self._writer, self._file = VideoWriter(path, found.file, picture.size), found.file
        self._writer.write(picture, found.seconds)

    def close(self) -> None:
        """Completes the video that is being written."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


class VideoWriter:
    """Writes a video frame by frame, and copies the sound of another one.

    Args:
        path: file to write.
        original: the video whose sound is copied; a camera, which is not a file, has none.
        size: (width, height) of the frames in pixels. An odd side grows by a pixel.

    Raises:
        InputError: the file cannot be written, or the format cannot hold this sound.
    """

    def __init__(self, path: Path, original: Path, size: tuple[int, int]) -> None:
        import av

        self._path = path
        self._last = -MILLISECOND
        with _written(path), ExitStack() as opened:
            self._container: Any = opened.enter_context(closing(av.open(str(path), "w")))
            self._sound = opened.enter_context(closing(_Sound(original)))
            self._video: Any = self._container.add_stream("libx264", rate=30)
            self._video.width, self._video.height = (side + side % 2 for side in size)
            self._video.pix_fmt = "yuv420p"
            self._video.codec_context.time_base = CLOCK
            self._sound.attach(self._container)
            self._container.start_encoding()
            self._opened = opened.pop_all()

    def write(self, picture: Image.Image, seconds: float) -> None:
        """Adds a frame of the size of the first one, and the sound up to it.

        Raises:
            InputError: the file cannot be written.
        """
        import av

        pixels = np.asarray(picture.convert("RGB"))
        bottom, right = pixels.shape[0] % 2, pixels.shape[1] % 2
        pixels = np.pad(pixels, ((0, bottom), (0, right), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        self._last = max(round(seconds / CLOCK), self._last + MILLISECOND)
        frame.pts, frame.time_base = self._last, CLOCK
        with _written(self._path):
            self._container.mux(self._video.encode(frame))
            self._sound.copy(seconds)

    def close(self) -> None:
        """Writes what the encoder still holds, and the rest of the sound.

        Raises:
            InputError: the file cannot be written; it is closed all the same.
        """
        with _written(self._path), self._opened:
            self._container.mux(self._video.encode(None))
            self._sound.copy(float("inf"))


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Turns what FFmpeg says of a video that is being written into one line."""
    import av

    try:
        yield
    except (av.FFmpegError, ValueError) as error:
        raise InputError(f"{path}: this video cannot be written ({one_line(error)})") from error


class _Sound:
    """The packets of a video's sound, copied in the order of their times."""

    def __init__(self, original: Path) -> None:
        import av

        self._input: Any = av.open(str(original)) if original.is_file() else None
        self._target: Any = None
        self._container: Any = None
        streams = self._input.streams.audio if self._input else ()
        self._stream: Any = streams[0] if streams else None
        self._packets: Any = self._input.demux(self._stream) if self._stream else iter(())
        self._waiting: Any = None

    def attach(self, container: Any) -> None:
        """Adds the sound's stream to a video that is going to be written."""
        self._container = container
        if self._stream is not None:
            self._target = container.add_stream_from_template(self._stream)

    def copy(self, until: float) -> None:
        """Copies what begins before `until`, in seconds."""
        while (packet := self._next()) is not None:
            if float(packet.pts * packet.time_base) > until:
                self._waiting = packet
                return
            packet.stream = self._target
            self._container.mux(packet)

    def _next(self) -> Any:
        packet, self._waiting = self._waiting, None
        if packet is not None:
            return packet
        return next((each for each in self._packets if each.dts is not None), None)

    def close(self) -> None:
        """Closes the original."""
        if self._input is not None:
            self._input.close()
