"""`labels/`: YOLO label files, to correct and to train on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from od_detr.inference.outputs.output import Found


class YoloLabels:
    """A text file for each image or frame, with `class x y width height` for each detection.

    The class is its number, from 0, in `classes.txt` beside the folder. Centre and size are shares
    of the image. An image without detections gets an empty file, as YOLO marks it.

    Args:
        folder: folder to write.
        classes: name of each class id.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        names = "".join(f"{name}\n" for name in classes)
        (folder.parent / "classes.txt").write_text(names, encoding="utf-8")

    def add(self, found: Found) -> None:
        """Writes the labels of one image."""
        width, height = found.size
        lines = []
        for (x1, y1, x2, y2), label, _ in found.objects:
            shares = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
            shares += (x2 - x1) / width, (y2 - y1) / height
            lines.append(" ".join([str(label), *(f"{share:.6f}" for share in shares)]))
        text = "".join(f"{line}\n" for line in lines)
        (self.folder / f"{found.unique_name}.txt").write_text(text, encoding="utf-8")

    def close(self) -> None:
        """Does nothing: every file is complete."""
