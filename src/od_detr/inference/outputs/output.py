"""What every output is given, and what it must offer."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    import supervision


class Seen(NamedTuple):
    """One detection.

    Attributes:
        box: left, top, right and bottom in pixels.
        label: the class id.
        score: from 0 to 1.
    """

    box: tuple[float, float, float, float]
    label: int
    score: float


@dataclass(frozen=True)
class Found:
    """An image, or a frame of a video, and what was detected in it.

    Attributes:
        file: the image or video; `camera0` for a camera.
        name: the stem of every file that is written for it, unique within a call.
        pixels: RGB.
        detections: class ids count the detector's classes; pixel xyxy inside the image.
        image_id: the id in COCO results.
        frame: number of the frame in its video, from 0; None for an image.
        seconds: when the frame is shown, from the start of its video.
    """

    file: Path
    name: str
    pixels: UInt8[Tensor, "3 H W"]
    detections: supervision.Detections
    image_id: int | str
    frame: int | None = None
    seconds: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.pixels.shape[2], self.pixels.shape[1]

    @property
    def unique_name(self) -> str:
        """A name for each image and each frame: `street`, or `clip-000012`."""
        return self.name if self.frame is None else f"{self.name}-{self.frame:06}"

    @property
    def objects(self) -> list[Seen]:
        """The detections one by one, best first."""
        each = self.detections
        if each.confidence is None or each.class_id is None:
            return []
        rows = zip(each.xyxy.tolist(), each.class_id, each.confidence, strict=True)
        return [Seen((x1, y1, x2, y2), int(n), float(s)) for (x1, y1, x2, y2), n, s in rows]

    def picture(self) -> Image.Image:
        """The pixels as an RGB image."""
        return Image.fromarray(self.pixels.permute(1, 2, 0).contiguous().numpy())


def save_jpeg(picture: Image.Image, file: Path, quality: int = 75) -> None:
    """Writes a JPEG, or fails: on a full disk Pillow itself leaves a part of one and says nothing.

    Raises:
        OSError: the file cannot be written.
    """
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality)
    file.write_bytes(content.getvalue())


@runtime_checkable
class Output(Protocol):
    """Writes what was found as it is found."""

    def add(self, found: Found) -> None:
        """Writes one image or frame at once, so that other programs can read it during the run."""

    def close(self) -> None:
        """Completes the files. It is called once, also after an error or Ctrl-C."""
