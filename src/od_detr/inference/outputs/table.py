"""`detections.csv`: a row for each detection."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from od_detr.files import as_text
from od_detr.inference.outputs.output import Found

COLUMNS = ("file_name", "frame", "class", "score", "x1", "y1", "x2", "y2")


class Table:
    """A table of detections that spreadsheets and pandas read; boxes are pixel corners.

    Args:
        path: file to write.
        classes: name of each class id.
    """

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self.classes = classes
        self._file = path.open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(COLUMNS)

    def add(self, found: Found) -> None:
        """Adds a row for each detection; `frame` is empty for an image."""
        frame = "" if found.frame is None else found.frame
        for box, label, score in found.objects:
            corners = [f"{side:.2f}" for side in box]
            row = [as_text(found.file), frame, self.classes[label], f"{score:.4f}", *corners]
            self._rows.writerow(row)
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
