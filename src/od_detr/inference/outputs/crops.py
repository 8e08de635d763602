"""`crops/`: each detection as a picture of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from od_detr.inference.outputs.output import Found, save_jpeg


class Crops:
    """`crops/CLASS/NAME-1.jpg`, `-2.jpg`, ..., the highest score first.

    A crop has every pixel that its box touches.

    Args:
        folder: folder to write.
        classes: name of each class id.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.folder = folder
        self.classes = [folder_name(name) for name in classes]

    def add(self, found: Found) -> None:
        """Writes a picture for each detection."""
        if len(found.detections) == 0:
            return
        picture = found.picture()
        for number, ((x1, y1, x2, y2), label, _) in enumerate(found.objects, 1):
            box = math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)
            if box[0] == box[2] or box[1] == box[3]:
                continue  # a box without area touches no pixel
            folder = self.folder / self.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            save_jpeg(picture.crop(box), folder / f"{found.unique_name}-{number}.jpg", quality=95)

    def close(self) -> None:
        """Does nothing: every file is complete."""


def folder_name(name: str) -> str:
    """A class name that is a single folder on every system."""
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", name).strip(". ") or "_"
