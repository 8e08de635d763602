"""Drawn copies of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from od_detr.inference.outputs.output import Found, save_jpeg


class Pictures:
    """`NAME.jpg` with a box and a label for each detection; frames of videos are left out.

    Args:
        folder: folder to write.
        classes: name of each class id.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.folder, self.classes = folder, classes

    def add(self, found: Found) -> None:
        """Draws one image."""
        from od_detr.reporting.drawing import draw

        if found.frame is None:
            drawn = draw(found.picture(), found.detections, self.classes)
            save_jpeg(drawn, self.folder / f"{found.name}.jpg")

    def close(self) -> None:
        """Does nothing: every file is complete."""
